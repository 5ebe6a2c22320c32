"""The log of a training as TensorBoard events, written by torch's `SummaryWriter`: each step once, whatever was killed.

A process writes one file, and TensorBoard reads the files in the order in which they began. Where a training was killed
or took steps again, the next file begins with the step from which TensorBoard is to forget what those before it say.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ValidationError

from pipeline.pictures.png import replace
from pipeline.training.record.history import Entry, History, is_number

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
_STATE, _LOCK, _FILES = "written.json", "lock", "events.out.tfevents."
Sheet = tuple[int, Path]
"""The step of a sheet of examples, and its PNG file."""


class _Written(BaseModel):
    """What the files hold; a process killed before it said so has written more, which the next one takes back."""

    began: float  # unix time of step 0
    lines: list[str]  # of the log
    picture: int = -1  # the step of the last sheet
    newest: tuple[str, int] | None = None  # name and bytes of the last file


class Events:
    """The events of one training, in OUTPUT/tensorboard; the file of this process stays open until `close`.

    Args:
        output: directory of the training.
    """

    def __init__(self, output: Path) -> None:
        self._folder = output / FOLDER
        self._writer: SummaryWriter | None = None
        self._file: Path | None = None

    def update(self, history: History, sheet: Sheet | None = None) -> Path:
        """Bring the events up to the log and the sheet of examples; returns their folder.

        Raises:
            OSError: the disk is full or cannot be written; the next update writes what is missing.
        """
        self._folder.mkdir(exist_ok=True)
        with _held(self._folder):
            try:
                self._update(history, sheet)
            except BaseException:
                self.close()  # nobody knows what its file holds now: the next update begins another
                raise
        return self._folder

    def close(self) -> None:
        """Close the file, which every update has flushed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _update(self, history: History, sheet: Sheet | None) -> None:
        lines = [json.dumps(entry) for entry in history.entries]
        written = self._written() or _Written(began=time.time() - _seconds(history.entries), lines=[])
        pictured = -1 if sheet is None else sheet[0]
        if lines == written.lines and pictured <= written.picture:
            return
        writer, start = self._opened(history, lines, written)
        _add_scalars(writer, history.entries, start, written.began)
        if sheet is not None and pictured > written.picture:
            _add_picture(writer, sheet, written.began + _seconds(history.entries))
            written.picture = pictured
        writer.flush()
        written.lines, written.newest = lines, self._seen()
        replace(self._folder / _STATE, written.model_dump_json().encode())

    def _opened(self, history: History, lines: list[str], written: _Written) -> tuple[SummaryWriter, int]:
        """What to write with, and the first line of the log that has to be written."""
        start = _common(lines, written.lines)
        if start == len(written.lines) and self._seen() == written.newest:
            ours = self._writer if self._file == self._newest() else None
            return ours or self._begun(None), start
        # Steps were taken again, or a kill left events that nobody knows of.
        following = [json.loads(line)["step"] for line in (*lines[start:][:1], *written.lines[start:][:1])]
        step = min(following, default=history.last_step + 1)
        written.picture = min(written.picture, step - 1)
        return self._begun(step), sum(entry["step"] < step for entry in history.entries)

    def _begun(self, purged_from: int | None) -> SummaryWriter:
        """A file that sorts after all others: their names start with the second in which they were begun."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.close()
        newest = self._newest()
        if newest is not None and newest.name.startswith(f"{_FILES}{int(time.time()):010d}"):
            time.sleep(1.01 - time.time() % 1.0)
        self._writer = SummaryWriter(str(self._folder), purge_step=purged_from)
        self._file = self._newest()
        return self._writer

    def _seen(self) -> tuple[str, int] | None:
        newest = self._newest()
        return None if newest is None else (newest.name, newest.stat().st_size)

    def _newest(self) -> Path | None:
        return max(self._folder.glob(f"{_FILES}*"), default=None)

    def _written(self) -> _Written | None:
        """None where nothing is written, or nothing says what."""
        try:
            return _Written.model_validate_json((self._folder / _STATE).read_bytes()) if self._newest() else None
        except (FileNotFoundError, ValidationError):
            return None


def scalars(entry: Entry) -> dict[str, float]:
    """Tags and values of a line of the log: train/loss of a step, iou/lucchi of a validation of lucchi."""
    values = {key: float(value) for key, value in entry.items() if key != "step" and is_number(value)}
    volume = entry.get("validation")
    return {f"train/{key}" if volume is None else f"{key}/{volume}": value for key, value in values.items()}


def _add_scalars(writer: SummaryWriter, entries: Sequence[Entry], start: int, began: float) -> None:
    """The lines from `start` on; their times are those that the training took, without its pauses."""
    passed = _seconds(entries[:start])
    for entry in entries[start:]:
        passed += _seconds([entry])
        for tag, value in scalars(entry).items():
            writer.add_scalar(tag, value, entry["step"], began + passed)


def _add_picture(writer: SummaryWriter, sheet: Sheet, wall_time: float) -> None:
    from PIL import Image  # matplotlib brings it, and without matplotlib there is no picture

    with Image.open(sheet[1]) as picture:
        writer.add_image("examples", np.asarray(picture), sheet[0], wall_time, "HWC")


def _common(lines: Sequence[str], written: Sequence[str]) -> int:
    """How many lines are the same, from the first on."""
    different = (n for n, (one, other) in enumerate(zip(lines, written, strict=False)) if one != other)
    return next(different, min(len(lines), len(written)))


def _seconds(entries: Sequence[Entry]) -> float:
    return float(sum(entry["seconds"] for entry in entries if is_number(entry.get("seconds"))))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Writers take turns, also those of two processes."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
