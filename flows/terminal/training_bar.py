"""The bar of a training on a terminal. Imports rich, so it is imported only when shown."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.text import Text

from flows.terminal.training_pace import TrainingPace

BAR_WIDTH = 30
ERASE_LINE = "\r\x1b[2K"


class TrainingBar:
    """One line that redraws itself: a training ends at any step, so nothing is held that had to be given back."""

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream, self._steps = stream, steps
        self._console = Console(file=stream, highlight=False)

    def show(self, pace: TrainingPace) -> None:
        """Draw the bar and what stands beside it, cut to the width of the terminal."""
        beside = Text(f" {pace}", no_wrap=True)
        beside.truncate(max(1, self._console.width - BAR_WIDTH - 1), overflow="ellipsis")
        with self._console.capture() as drawn:
            self._console.print(ProgressBar(self._steps, min(pace.step, self._steps), width=BAR_WIDTH), end="")
            self._console.print(beside, end="")
        line = drawn.get().replace("\n", "")
        self._stream.write(f"{ERASE_LINE}{line}" + ("\n" if pace.finished else ""))
        self._stream.flush()
