"""How far a stage is: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from pipeline.engine.executor import Progress
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage

LINE_SECONDS = 10.0
BAR_SECONDS = 0.2
BAR_WIDTH = 30


@dataclass(slots=True)
class Pace:
    """Speed and remaining time of one stage, from what this process saw finish (not what earlier ones did)."""

    stage: str
    blocks: int
    done_before: int
    started: float
    done: int = 0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the speed so far; None before the first block."""
        fresh = self.done - self.done_before
        elapsed = time.monotonic() - self.started
        return elapsed / fresh * (self.blocks - self.done) if fresh > 0 else None

    @property
    def percent(self) -> float:
        """0..100."""
        return 100.0 * self.done / self.blocks if self.blocks else 100.0

    def __str__(self) -> str:
        eta = "" if self.eta_s is None else f", {duration(self.eta_s)} left"
        return f"{self.stage}: {self.done} of {self.blocks} blocks ({self.percent:.0f} %){eta}"


def duration(seconds: float) -> str:
    """For people: 45 s, 3 min 20 s, 5 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Watcher:
    """Makes a ``Progress`` for each stage; ``on_pace`` is called after blocks, at most every ``every_s`` seconds."""

    def __init__(self, on_pace: Callable[[Pace], None], every_s: float) -> None:
        self._on_pace, self._every_s = on_pace, every_s

    def __call__(self, step: str, stage: Stage) -> Progress:
        """Watch one stage of a step."""
        started = time.monotonic()
        pace: Pace | None = None
        last = started

        def progress(ledger: Ledger) -> None:
            nonlocal last, pace
            if pace is None:
                pace = Pace(stage.name, ledger.size, ledger.done_count - 1, started)
            pace.done = ledger.done_count
            if time.monotonic() - last >= self._every_s or pace.done == pace.blocks:
                last = time.monotonic()
                self._on_pace(pace)

        return progress


def terminal_watcher(stream: TextIO | None = None) -> Watcher:
    """Progress on standard error: a bar that redraws itself on a terminal, a line now and then elsewhere."""
    out = stream or sys.stderr
    if out.isatty():
        return Watcher(lambda pace: _draw(out, pace), BAR_SECONDS)
    return Watcher(lambda pace: _write_line(out, pace), LINE_SECONDS)


def _draw(out: TextIO, pace: Pace) -> None:
    filled = int(BAR_WIDTH * pace.percent / 100)
    bar = "█" * filled + "░" * (BAR_WIDTH - filled)
    out.write(f"\r\x1b[2K{bar} {pace}" + ("\n" if pace.done == pace.blocks else ""))
    out.flush()


def _write_line(out: TextIO, pace: Pace) -> None:
    out.write(f"{pace}\n")
    out.flush()
