"""How far a training is: for a terminal, and for Prefect's pages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from flows.terminal.progress import LINE_SECONDS
from flows.terminal.training_pace import TrainingPace
from pipeline.training.record.history import Entry
from pipeline.training.record.log import TrainingProgress

BAR_SECONDS = 0.2


def throttled(pace: TrainingPace, show: Callable[[TrainingPace], None], every_s: float) -> TrainingProgress:
    """A ``Progress`` that notes every entry and shows at most every ``every_s`` seconds, and the last step."""
    last = time.monotonic()

    def progress(entry: Entry) -> None:
        nonlocal last
        pace.note(entry)
        if time.monotonic() - last >= every_s or (pace.finished and "validation" not in entry):
            last = time.monotonic()
            show(pace)

    return progress


def terminal_progress(steps: int, stream: TextIO | None = None) -> TrainingProgress:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    out = stream or sys.stderr
    if out.isatty():
        from flows.terminal.training_bar import TrainingBar

        return throttled(TrainingPace(steps), TrainingBar(out, steps).show, BAR_SECONDS)
    return throttled(TrainingPace(steps), lambda pace: _write_line(out, pace), LINE_SECONDS)


def _write_line(out: TextIO, pace: TrainingPace) -> None:
    out.write(f"{pace}\n")
    out.flush()
