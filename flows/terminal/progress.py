"""How far a stage is: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from flows.terminal.pace import Pace, Watcher
from pipeline.engine.step import Step

LINE_SECONDS = 10.0


def terminal_watcher(stream: TextIO | None = None, steps: Sequence[Step] = ()) -> Watcher:
    """Progress of a run of these steps on standard error: bars on a terminal, a line now and then elsewhere."""
    out = stream or sys.stderr
    if out.isatty():
        from flows.terminal.bars import Bars

        return Bars(out, steps)
    return Watcher(lambda pace: _write_line(out, pace), LINE_SECONDS)


def _write_line(out: TextIO, pace: Pace) -> None:
    out.write(f"{pace}\n")
    out.flush()
