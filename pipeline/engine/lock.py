"""One driver a run directory: a lock that the system gives back when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import BadInput, RunConflict

LOCK = "lock"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory; one made here for input that is then refused is taken away again.

    Raises:
        RunConflict: another process holds it; names the process and its host.
    """
    made_here = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunConflict(
                f"{directory}: another run works in this directory ({_holder(file.read())}). "
                "Wait for it, stop it, or choose another output directory."
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        try:
            yield
        except BadInput:
            if made_here and [path.name for path in directory.iterdir()] == [LOCK]:
                (directory / LOCK).unlink()
                directory.rmdir()
            raise


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except ValueError:
        return "process unknown"
    return f"process {holder['pid']} on {holder['host']}"
