"""The training log: one JSON object a line, what curves are drawn from and progress is told by."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.training.history import LOG

Progress = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


class TrainingLog:
    """Appends entries to OUTPUT/log.jsonl; `history.read_history` reads them.

    Args:
        output: directory of the training.
        progress: called with every entry as it is written.
    """

    def __init__(self, output: Path, progress: Progress | None = None) -> None:
        self._path, self._progress = output / LOG, progress

    def add(self, entry: dict[str, Any]) -> None:
        """Write one entry; it has a `step`."""
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        log.info("%s", entry)
        if self._progress is not None:
            self._progress(entry)
