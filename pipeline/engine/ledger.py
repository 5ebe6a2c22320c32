"""The ledger of a stage: an append-only text file of finished blocks, written by the driver alone.

First line: JSON with the stage, its fingerprint and the number of blocks. Then a line a block,
``number count read_ms op_ms write_ms`` for a finished one and ``number ! reason`` for a failed one; where it failed at
something stored that is torn or gone, a tab and ``{"unreadable": path}`` follow (a reason holds no tab). An array is
always stored before its line. Each line is flushed when written (17 us), and fsync'ed once a second. A line torn by a
crash is dropped when the ledger is opened again; its block is then computed again.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from pipeline.engine.stage import BlockResult, failed
from pipeline.errors import RunConflict

FSYNC_SECONDS = 1.0
_UNREADABLE = "unreadable"
SHOWN_BYTES = 60  # of a damaged line
LINE = re.compile(rb"(\d{1,18}) (?:\d{1,18}(?: \d{1,18}){3}|! .*)\n")
REPLAY_BYTES = 2**22  # read at a time: a ledger of 10^6 blocks (20 MB) is reopened in under a second, in little memory


class Record:
    """What the lines of a ledger say about ``size`` blocks: which are done, their counts, the seconds, the failures.

    ``failures`` are the reasons of blocks that failed, ``unreadable`` the paths of what some of them could not read.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.done: npt.NDArray[np.bool_] = np.zeros(size, bool)
        self.counts: npt.NDArray[np.int64] = np.zeros(size, np.int64)
        self.seconds: npt.NDArray[np.float64] = np.zeros(3)  # read, op, write; summed over blocks
        self.failures: dict[int, str] = {}
        self.unreadable: dict[int, str] = {}
        self._done_count = 0

    @property
    def done_count(self) -> int:
        """How many blocks are done; asked after every block, so it is kept and not counted."""
        return self._done_count

    def note(self, result: BlockResult) -> None:
        """Take in one result: a block that was done stays done, one that failed may be done later."""
        if result.error is not None:
            if not self.done[result.number]:
                self._forget(result.number)
                self.failures[result.number] = result.error
                if result.unreadable is not None:
                    self.unreadable[result.number] = result.unreadable
            return
        self._done_count += int(not self.done[result.number])
        self.done[result.number] = True
        self.counts[result.number] = result.count
        self.seconds += (result.read_s, result.op_s, result.write_s)
        self._forget(result.number)

    def _forget(self, number: int) -> None:
        self.failures.pop(number, None)
        self.unreadable.pop(number, None)

    def note_lines(self, lines: Sequence[bytes]) -> None:
        """As ``note`` of every line in order, the finished blocks all at once.

        Raises:
            ValueError, IndexError: a line is none of a ledger, or of a block that there is not.
        """
        failed = [line for line in lines if b"!" in line]
        finished = [line for line in lines if b"!" not in line] if failed else lines
        if finished:
            numbers, counts, read, op, write = np.loadtxt(finished, np.int64, comments=None, ndmin=2).T
            if numbers.min() < 0:
                raise IndexError(f"block {numbers.min()}")
            self.done[numbers] = True
            self.counts[numbers] = counts  # a block that stands there twice keeps its last count
            self.seconds += np.sum((read, op, write), axis=1) / 1000
            self._done_count = int(np.count_nonzero(self.done))
        for line in failed:
            self.note(_of_a_block(line, self.size))
        for number in [number for number in self.failures if self.done[number]]:
            self._forget(number)


class Ledger(Record):
    """Which blocks of one stage are done. Use as a context manager; one driver at a time.

    Args:
        path: the file; made with its folder when missing.
        stage: name of the stage, for messages.
        fingerprint: of the stage; an existing ledger of another fingerprint is refused.
        size: number of blocks of the stage's grid.

    Raises:
        RunConflict: the file belongs to another fingerprint or grid, or a line of it cannot be read.
    """

    def __init__(self, path: Path, stage: str, fingerprint: str, size: int) -> None:
        super().__init__(size)
        self.path, self.stage, self.fingerprint = path, stage, fingerprint
        self._synced = time.monotonic()
        self._replay()
        self._file = path.open("ab")

    def append(self, result: BlockResult) -> None:
        """Record a finished or failed block; the line has left this process when the call returns."""
        # A file name that is no UTF-8 can stand in an error.
        self._file.write(_line(result).encode(errors="backslashreplace"))
        self._file.flush()
        self.note(result)
        if time.monotonic() - self._synced > FSYNC_SECONDS:
            self.sync()

    def pending(self) -> Iterator[int]:
        """Numbers of the blocks that are not done, in order, without a list of them."""
        return (number for number in range(self.size) if not self.done[number])

    @property
    def is_complete(self) -> bool:
        """True when every block is done."""
        return self._done_count == self.size

    def sync(self) -> None:
        """Force what was appended to the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close; the ledger can be opened again."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _replay(self) -> None:
        header = {"stage": self.stage, "fingerprint": self.fingerprint, "blocks": self.size}
        if not self.path.exists():
            self._start(header)
            return
        with self.path.open("rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                self._start(header)
                return
            self._require_same(_header(self.path, first), header)
            torn = _note_whole_lines(file, self)
        if torn:
            os.truncate(self.path, self.path.stat().st_size - torn)

    def _start(self, header: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(header) + "\n")

    def _require_same(self, found: dict[str, Any], expected: dict[str, Any]) -> None:
        if found != expected:
            names = [key for key in expected if found.get(key) != expected[key]]
            raise RunConflict(
                f"{self.path}: this ledger belongs to another {' and '.join(names)} of stage {self.stage} "
                f"({found} instead of {expected}). Use a new output directory for a changed configuration. If nothing "
                "was changed, another version of teramito began it: delete this ledger and run the same command, and "
                "what follows is made again."
            )


def read_record(path: Path) -> tuple[dict[str, Any], Record] | None:
    """The first line and the record of a ledger, also while a run writes it; None before its first line is whole.

    Raises:
        RunConflict: a line of it cannot be read.
    """
    with path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return None
        header = _header(path, first)
        record = Record(header["blocks"])
        _note_whole_lines(file, record)
    return header, record


def _note_whole_lines(file: BinaryIO, record: Record) -> int:
    """Take in the lines from here on; how many bytes a torn last one has."""
    before = 1
    while lines := file.readlines(REPLAY_BYTES):
        torn = b"" if lines[-1].endswith(b"\n") else lines.pop()
        try:
            record.note_lines(lines)
        except (ValueError, IndexError, OverflowError):
            bad = next((n for n, line in enumerate(lines) if not _is_readable(line, record.size)), 0)
            remedy = "Delete that line and run the same command again: its block, if it was one, is computed again"
            raise _unreadable(Path(file.name), before + bad + 1, lines[bad], remedy) from None
        before += len(lines)
        if torn:  # and nothing after it: a run that writes at this moment would go on in the middle of a line
            return len(torn)
    return 0


def _header(path: Path, first: bytes) -> dict[str, Any]:
    try:
        found = json.loads(first)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("stage"), str) and isinstance(found.get("blocks"), int):
        return found
    raise _unreadable(path, 1, first, "Delete the ledger and run the same command again: the stage is computed again")


def _unreadable(path: Path, number: int, line: bytes, remedy: str) -> RunConflict:
    shown = line[:SHOWN_BYTES].decode(errors="replace").rstrip("\n")
    return RunConflict(f"{path}, line {number}: no ledger wrote this line, {shown!r}; the file was damaged. {remedy}.")


def _is_readable(line: bytes, size: int) -> bool:
    found = LINE.fullmatch(line)
    return found is not None and int(found[1]) < size


def _of_a_block(line: bytes, size: int) -> BlockResult:
    """A line of a ledger of so many blocks as a result; ValueError or IndexError for any other line."""
    result = parse_line(line.decode(errors="replace").removesuffix("\n"))
    if not 0 <= result.number < size:
        raise IndexError(f"block {result.number} of {size}")
    return result


def _line(result: BlockResult) -> str:
    if result.error is not None:
        # JSON in ASCII has no line break, whatever the path.
        fields = "" if result.unreadable is None else f"\t{json.dumps({_UNREADABLE: result.unreadable})}"
        return f"{result.number} ! {' '.join(result.error.split())}{fields}\n"
    times = " ".join(f"{seconds * 1000:.0f}" for seconds in (result.read_s, result.op_s, result.write_s))
    return f"{result.number} {result.count} {times}\n"


def parse_line(line: str) -> BlockResult:
    """One line of a ledger as a result."""
    number, count, rest = line.split(" ", 2)
    if count == "!":
        reason, path = _reason(rest)
        return failed(int(number), reason, path)
    read, op, write = (float(part) / 1000 for part in rest.split())
    return BlockResult(int(number), int(count), read, op, write)


def _reason(text: str) -> tuple[str, str | None]:
    """Why a block failed, and the path of what it could not read, if the line names one."""
    reason, _, fields = text.partition("\t")
    try:
        path = json.loads(fields)[_UNREADABLE]
    except (ValueError, LookupError, TypeError):
        return text, None
    return (reason, path) if isinstance(path, str) else (text, None)
