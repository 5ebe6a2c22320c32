"""One computation at a time in a process, while its other threads read and write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Semaphore

# One: two networks at once on one device only take each other's memory, and two on one CPU each other's cores.
_SLOT = Semaphore(1)


@contextmanager
def compute_slot() -> Iterator[None]:
    """Hold the process-wide right to compute; not reentrant, and never held around reads and writes."""
    with _SLOT:
        yield
