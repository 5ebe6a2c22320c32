"""How fast a stage is and how long it takes yet, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Self

from pipeline.engine.executor import Progress
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage


@dataclass(slots=True)
class Pace:
    """Speed and remaining time of one stage, from what this process saw finish (not what earlier ones did).

    Attributes:
        stage: its name.
        blocks: of its grid.
        done_before: when this process came to it.
        started: on the clock of ``time.monotonic``.
        done: blocks done by now.
        step: the step that the stage belongs to.
        voxels_a_block: on average, at the resolution of the stage's own grid.
    """

    stage: str
    blocks: int
    done_before: int
    started: float
    done: int = 0
    step: str = ""
    voxels_a_block: float = 0.0

    @property
    def blocks_a_second(self) -> float | None:
        """Blocks a second so far; None before the first one."""
        fresh, elapsed = self.done - self.done_before, time.monotonic() - self.started
        return fresh / elapsed if fresh > 0 and elapsed > 0 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the speed so far; None before the first block."""
        speed = self.blocks_a_second
        return None if speed is None else (self.blocks - self.done) / speed

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
    """Makes a ``Progress`` for each stage; ``on_pace`` is called after blocks, at most every ``every_s`` seconds.

    Use as a context manager, so that what it draws on is given back however the run ends.
    """

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
                voxels = prod(stage.grid.extent) / ledger.size
                pace = Pace(stage.name, ledger.size, ledger.done_count - 1, started, 0, step, voxels)
            pace.done = ledger.done_count
            if time.monotonic() - last >= self._every_s or pace.done == pace.blocks:
                last = time.monotonic()
                self._on_pace(pace)

        return progress

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
