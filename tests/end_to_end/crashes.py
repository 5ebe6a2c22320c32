"""Crashes at a chosen write: nothing that this process wrote before is lost, nothing after happens."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from zarr.core import sync
from zarr.storage import _local

from pipeline.engine.ledger import Ledger, _line
from pipeline.engine.stage import BlockResult

WAYS = ("before", "torn", "after")


class Crash(BaseException):
    """No broad except catches it, as none catches kill -9."""


class Writes:
    """Counts writes (a file that gets its name, a ledger's line) and crashes at one of them, and at all that follow."""

    def __init__(self, last: int, way: str) -> None:
        self.left, self.way = last, way

    def __call__(self, write: Any, torn: Any) -> Any:
        self.left -= 1
        if self.left > 0:
            return write()
        if self.left == 0 and self.way == "torn":
            torn()
        if self.left == 0 and self.way == "after":
            write()
        raise Crash


@contextmanager
def crash_at(last: int, way: str) -> Iterator[None]:
    """Crash before, in the middle of or after the write of that number, from 1; no crash when there are fewer.

    Chunks are torn as well, though zarr-python renames them into place: the codecs of our own processes do not.
    """
    writes = Writes(last, way)
    replace, rename, write_text, append = Path.replace, Path.rename, Path.write_text, Ledger.append

    def crashing_replace(source: Path, target: Path) -> Any:
        def torn() -> None:
            if source.name.endswith(".partial") and "arrays" in target.parts and target.suffix != ".json":
                target.write_bytes((data := source.read_bytes())[: len(data) // 2])

        return writes(lambda: replace(source, target), torn)

    def crashing_rename(source: Path, target: Path) -> Any:
        return writes(lambda: rename(source, target), lambda: None)

    def crashing_text(path: Path, text: str, *args: Any, **kwargs: Any) -> Any:
        return writes(lambda: write_text(path, text, *args, **kwargs), lambda: write_text(path, text[: len(text) // 2]))

    def crashing_append(ledger: Ledger, result: BlockResult) -> Any:
        def torn() -> None:
            line = _line(result).encode()
            ledger._file.write(line[: max(1, len(line) // 2)])
            ledger._file.flush()

        return writes(lambda: append(ledger, result), torn)

    with (
        patch.object(os, "fsync"),  # the process dies, not the machine
        patch.object(Path, "replace", crashing_replace),
        patch.object(Path, "rename", crashing_rename),
        patch.object(Path, "write_text", crashing_text),
        patch.object(Ledger, "append", crashing_append),
        settled_zarr(),
    ):
        yield


@contextmanager
def settled_zarr() -> Iterator[None]:
    """At the end, wait for the writes that zarr's own threads have under way: a dead process has none."""
    put, under_way = _local._put, set[object]()

    def counted(*args: Any, **kwargs: Any) -> int:
        under_way.add(this := object())
        try:
            return put(*args, **kwargs)
        finally:
            under_way.remove(this)

    with patch.object(_local, "_put", counted):
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(_tasks_ended(), sync._get_loop()).result(timeout=60)
            while under_way:
                time.sleep(0.001)


async def _tasks_ended() -> None:
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
