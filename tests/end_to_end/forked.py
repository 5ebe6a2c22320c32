"""Processes that have imported everything when they start: for tests that kill many."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServerContext]:
    """They are gone when the test is, whatever happens."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["label_path", "slow_driver"])
    yield context
    for process in multiprocessing.active_children():
        if isinstance(process, ForkServerProcess):
            process.kill()
            process.join()
