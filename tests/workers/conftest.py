"""One real cluster of two worker processes for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.settings import ClusterSettings
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor

sys.path.insert(0, str(Path(__file__).parent))  # worker processes get this path and find the toy stages on it


@pytest.fixture(scope="session")
def shared_executor() -> Iterator[DaskExecutor]:
    """Two processes of two threads; a block may leave one dead worker behind before it is suspected."""
    config = ClusterSettings(workers=2, compute_threads=1, memory_limit="2 GiB", allowed_failures=1, worker_wait_s=60)
    with open_executor(config) as executor:
        assert isinstance(executor, DaskExecutor)
        yield executor


@pytest.fixture
def executor(shared_executor: DaskExecutor) -> DaskExecutor:
    """The shared cluster with both workers alive (another test may just have killed one)."""
    shared_executor.client.wait_for_workers(2, timeout=60)
    return shared_executor
