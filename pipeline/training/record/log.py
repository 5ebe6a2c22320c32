"""The training log: one JSON object a line, what curves are drawn from and progress is told by."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.training.record.history import LOG, read_history

Progress = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


class TrainingLog:
    """Appends entries to OUTPUT/log.jsonl; `history.read_history` reads them.

    Args:
        output: directory of the training.
        progress: called with every entry as it is written.
        step: the last one that is kept: a killed training may have logged steps that it now takes again.
    """

    def __init__(self, output: Path, progress: Progress | None = None, step: int = 0) -> None:
        self._path, self._progress = output / LOG, progress
        self._forget_after(step)

    def add(self, entry: dict[str, Any]) -> None:
        """Write one entry; it has a `step`."""
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        log.info("%s", entry)
        if self._progress is not None:
            self._progress(entry)

    def _forget_after(self, step: int) -> None:
        """No step stands in the log twice, and no new line after one that a full disk cut short."""
        if not self._path.exists():
            return
        kept = [entry for entry in read_history(self._path.parent).entries if entry["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        if text != self._path.read_text(errors="replace"):
            beside = self._path.with_suffix(".partial")
            beside.write_text(text)
            beside.replace(self._path)
