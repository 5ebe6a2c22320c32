"""What a training tells while it goes on: one JSON object a line, and the pictures that are drawn from them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.training.record.curves import draw_curves
from pipeline.training.record.history import LOG, read_history
from pipeline.training.record.tensorboard import Events

TrainingProgress = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


class TrainingLog:
    """Appends entries to OUTPUT/log.jsonl, which `history.read_history` reads, and draws them.

    A context manager: at its end the TensorBoard events that `draw` has opened are closed.

    Args:
        output: directory of the training.
        progress: called with every entry as it is written.
        step: the last one that is kept: a killed training may have logged steps that it now takes again.
    """

    def __init__(self, output: Path, progress: TrainingProgress | None = None, step: int = 0) -> None:
        self._path, self._progress, self._events = output / LOG, progress, Events(output)
        self._forget_after(step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Write one entry; it has a `step`."""
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        log.info("%s", entry)
        if self._progress is not None:
            self._progress(entry)

    def draw(self) -> None:
        """Bring curves.png, examples.png and tensorboard/ up to the log, as well as this machine can."""
        draw_curves(self._path.parent, self._events)

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
