"""Bars on a terminal: one a step, with blocks, speed and time left. Imports rich, so it is imported only when shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from flows.terminal.logs import DivertedLogs
from flows.terminal.pace import Pace, Watcher, duration
from pipeline.engine.step import Step

REFRESH_A_SECOND = 5
WIDE = 100  # columns from which speeds fit beside the bar
NARROW = 60  # below, even the bar is left out
UNITS = ((1e9, "Gvoxel/s"), (1e6, "Mvoxel/s"), (1e3, "kvoxel/s"))


class Bars(Watcher):
    """A watcher that shows a bar for every step of a run, as long as all stages that are known from the start.

    A stage that only earlier results decide makes the bar of its step longer.

    Args:
        stream: the terminal. What else is printed meanwhile goes above the bars.
        steps: of the run.
    """

    def __init__(self, stream: TextIO, steps: Sequence[Step] = ()) -> None:
        super().__init__(self._show, 1 / REFRESH_A_SECOND)
        self._shown = progress_on(stream)
        self._bars: dict[str, _Bar] = {}
        self._logs, self._is_started = DivertedLogs(), False
        self._blocks = {step.name: {stage.name: len(stage.grid) for stage in step.stages} for step in steps}

    def _show(self, pace: Pace) -> None:
        if not self._is_started:
            self._start()
        if pace.step not in self._bars:
            task = self._shown.add_task(pace.step, total=None, visible=False)
            self._bars[pace.step] = _Bar(task, self._blocks.get(pace.step, {}), pace.started)
        bar = self._bars[pace.step]
        bar.take(pace)
        left = _left(pace, bar)
        self._shown.update(
            bar.task, completed=bar.done, total=bar.total, visible=True, left=left, speed=_speed(pace), unit="blocks"
        )

    def _start(self) -> None:
        before = sys.stderr
        self._shown.start()  # what is written to sys.stderr from now on goes above the bars
        self._logs.divert(cast(TextIO, before), cast(TextIO, sys.stderr))
        self._is_started = True

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._logs.give_back()
        self._shown.stop()


class _Bar:
    """The bar of a step; ``blocks`` of its stages in order, those in front of the present one finished."""

    def __init__(self, task: TaskID, blocks: Mapping[str, int], started: float) -> None:
        self.task, self._blocks, self.started = task, dict(blocks), started
        self.done = 0

    @property
    def total(self) -> int:
        """Blocks of all its stages."""
        return sum(self._blocks.values())

    def take(self, pace: Pace) -> None:
        """Go on with this stage. An earlier process may have finished those before it, unseen here."""
        self._blocks[pace.stage] = pace.blocks
        names = list(self._blocks)
        self.done = sum(self._blocks[name] for name in names[: names.index(pace.stage)]) + pace.done


class _Beside(ProgressColumn):
    """What stands beside a bar, as much of it as the terminal is wide for."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        """Count, speed, and time left, or the time taken."""
        total = int(task.total or 0)
        parts = [f"{int(task.completed):,} of {total:,} {task.fields.get('unit', '')}".rstrip()]
        if self._console.width >= WIDE and task.fields.get("speed"):
            parts.append(task.fields["speed"])
        return Text(", ".join(part for part in (*parts, task.fields.get("left", "")) if part))


def progress_on(stream: TextIO) -> Progress:
    """Bars of this project's look on a terminal; not started yet."""
    console = Console(file=stream, highlight=False)
    name = TextColumn("{task.description:<9}", markup=False)
    bars = [] if console.width < NARROW else [BarColumn(bar_width=20 if console.width < WIDE else 30)]
    return Progress(
        name, *bars, _Beside(console), console=console, refresh_per_second=REFRESH_A_SECOND, redirect_stdout=False
    )


def _left(pace: Pace, bar: _Bar) -> str:
    """Time for the blocks that are left of the step, at the speed of the present stage; at its end, the time taken.

    The clock of rich goes on until the last bar is finished.
    """
    if bar.done == bar.total:
        return duration(time.monotonic() - bar.started)
    speed = pace.blocks_a_second
    return "" if speed is None else f"{duration((bar.total - bar.done) / speed)} left"


def _speed(pace: Pace) -> str:
    if pace.blocks_a_second is None:
        return ""
    voxels = pace.blocks_a_second * pace.voxels_a_block
    number = next((f"{voxels / size:.3g} {unit}" for size, unit in UNITS if voxels >= size), f"{voxels:.3g} voxel/s")
    return f"{pace.blocks_a_second:.3g} blocks/s, {number}"
