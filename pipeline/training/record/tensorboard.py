"""The log of a training as TensorBoard events: each step once, however often it is written and whatever was killed.

One file holds all events. While the log only grows, the events of its new lines are appended, so an open TensorBoard
follows. Where a resumed training took steps again, a new file replaces the old one and tells TensorBoard to forget.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.pictures.png import replace
from pipeline.training.record.history import Entry, History, is_number

FOLDER = "tensorboard"
_STATE, _LOCK = "written.json", "lock"


class _Written(BaseModel):
    """What the event file holds; it is cut to `size` before anything is appended, as a kill may have torn its end."""

    file: int = 0  # number of the file
    began: float  # unix time of step 0
    entries: int = 0  # lines of the log
    digest: str  # of these lines
    size: int = 0  # bytes
    picture: int = -1  # the step of the last sheet of examples


def write_events(output: Path, history: History, sheet: tuple[int, Path] | None = None) -> Path:
    """Bring OUTPUT/tensorboard up to the log; returns that folder.

    Args:
        output: directory of a training.
        history: of that training.
        sheet: the step of the examples and their picture, a PNG file.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    folder = output / FOLDER
    folder.mkdir(exist_ok=True)
    with _held(folder):
        written = _state(folder)
        if written is None or written.digest != _digest(history.entries[: written.entries]):
            written = _new_file(folder, history, 0 if written is None else written.file + 1)
        _append(folder, written, history, sheet)
        for path in folder.glob("events.out.tfevents.*"):
            if path != _file(folder, written):
                path.write_bytes(b"")  # a TensorBoard that reads it would stop where it vanished
    return folder


def scalars(entry: Entry) -> dict[str, float]:
    """Tags and values of a line of the log: train/loss of a step, iou/lucchi of a validation of lucchi."""
    values = {key: float(value) for key, value in entry.items() if key != "step" and is_number(value)}
    volume = entry.get("validation")
    return {f"train/{key}" if volume is None else f"{key}/{volume}": value for key, value in values.items()}


def _append(folder: Path, written: _Written, history: History, sheet: tuple[int, Path] | None) -> None:
    new = history.entries[written.entries :]
    passed = sum(_seconds(entry) for entry in history.entries[: written.entries])
    with _file(folder, written).open("r+b") as file:
        file.truncate(written.size)
        file.seek(written.size)
        for entry in new:
            passed += _seconds(entry)
            file.write(_scalar_record(entry, written.began + passed))
        if sheet is not None and sheet[0] > written.picture:
            file.write(_picture_record(*sheet, written.began + passed))
            written.picture = sheet[0]
        written.size = file.tell()
    written.entries, written.digest = len(history.entries), _digest(history.entries)
    replace(folder / _STATE, written.model_dump_json().encode())


def _new_file(folder: Path, history: History, number: int) -> _Written:
    """Begin a file: its version, and the start of a session, at which TensorBoard forgets what it read before."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    began = time.time() - sum(_seconds(entry) for entry in history.entries)
    written = _Written(file=number, began=began, digest=_digest(()))
    start = Event(wall_time=began, step=0, session_log=SessionLog(status=SessionLog.START))
    head = _record(Event(wall_time=began, file_version="brain.Event:2")) + _record(start)
    replace(_file(folder, written), head)
    written.size = len(head)
    return written


def _scalar_record(entry: Entry, wall_time: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(entry).items()]
    return _record(Event(wall_time=wall_time, step=entry["step"], summary=Summary(value=values)))


def _picture_record(step: int, path: Path, wall_time: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # PNG's first chunk
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
    return _record(
        Event(wall_time=wall_time, step=step, summary=Summary(value=[Summary.Value(tag="examples", image=image)]))
    )


def _record(event: Any) -> bytes:
    """An event framed as in TensorFlow's record files."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    framed = io.BytesIO()
    RecordWriter(framed).write(event.SerializeToString())
    return framed.getvalue()


def _state(folder: Path) -> _Written | None:
    """What is written already; None where nothing is, or nothing that fits its record."""
    try:
        written = _Written.model_validate_json((folder / _STATE).read_bytes())
        return written if _file(folder, written).stat().st_size >= written.size else None
    except (FileNotFoundError, ValidationError):
        return None


def _file(folder: Path, written: _Written) -> Path:
    return folder / f"events.out.tfevents.{written.file:010d}.training"


def _digest(entries: Sequence[Entry]) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _seconds(entry: Entry) -> float:
    seconds = entry.get("seconds", 0.0)
    return float(seconds) if is_number(seconds) else 0.0


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Writers take turns, also those of two processes."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
