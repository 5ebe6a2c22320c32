"""Bars on a terminal: one a step, with blocks, speed and time left. Imports rich, so it is imported only when shown."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from flows.terminal.pace import Pace, Watcher, duration

REFRESH_A_SECOND = 5
WIDE = 100  # columns from which speeds fit beside the bar
NARROW = 60  # below, even the bar is left out
UNITS = ((1e9, "Gvoxel/s"), (1e6, "Mvoxel/s"), (1e3, "kvoxel/s"))


class Bars(Watcher):
    """A watcher that shows a bar for every step of a run; further stages of a step make its bar longer.

    Args:
        stream: the terminal. What else is printed meanwhile goes above the bars.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(self._show, 1 / REFRESH_A_SECOND)
        self._shown = progress_on(stream)
        self._bars: dict[str, _Bar] = {}

    def _show(self, pace: Pace) -> None:
        self._shown.start()
        bar = self._bars.get(pace.step) or self._bars.setdefault(pace.step, _Bar(self._shown.add_task(pace.step)))
        bar.take(pace)
        done, total = bar.before + pace.done, bar.before + pace.blocks
        self._shown.update(bar.task, completed=done, total=total, left=_left(pace), speed=_speed(pace), unit="blocks")

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._shown.stop()


class _Bar:
    """The bar of a step: how many blocks the stages before the present one had."""

    def __init__(self, task: TaskID) -> None:
        self.task, self.before = task, 0
        self._pace: Pace | None = None

    def take(self, pace: Pace) -> None:
        """Go on with this stage; the one before it, if another, is finished."""
        if self._pace is not None and self._pace is not pace:
            self.before += self._pace.blocks
        self._pace = pace


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
        left = f"{duration(task.elapsed or 0)}" if task.finished else task.fields.get("left", "")
        return Text(", ".join(part for part in (*parts, left) if part))


def progress_on(stream: TextIO) -> Progress:
    """Bars of this project's look on a terminal; not started yet."""
    console = Console(file=stream, highlight=False)
    name = TextColumn("{task.description:<9}", markup=False)
    bars = [] if console.width < NARROW else [BarColumn(bar_width=20 if console.width < WIDE else 30)]
    return Progress(
        name, *bars, _Beside(console), console=console, refresh_per_second=REFRESH_A_SECOND, redirect_stdout=False
    )


def _left(pace: Pace) -> str:
    return "" if pace.eta_s is None else f"{duration(pace.eta_s)} left"


def _speed(pace: Pace) -> str:
    if pace.blocks_a_second is None:
        return ""
    voxels = pace.blocks_a_second * pace.voxels_a_block
    number = next((f"{voxels / size:.3g} {unit}" for size, unit in UNITS if voxels >= size), f"{voxels:.3g} voxel/s")
    return f"{pace.blocks_a_second:.3g} blocks/s, {number}"
