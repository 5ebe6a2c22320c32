"""A driver for the tests: opens two workers, writes its and their process ids to a file, and computes for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cluster_stages import Recorder

from pipeline.engine.settings import ClusterSettings
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor


def drive(folder: Path) -> None:
    """Run long blocks; the caller kills this process."""
    with open_executor(ClusterSettings(workers=2, compute_threads=1)) as executor:
        assert isinstance(executor, DaskExecutor)
        pids = executor.client.run(os.getpid).values()
        results = executor.map(Recorder(folder, blocks=10_000, seconds=0.5), range(10_000))
        next(results)
        (folder / "pids.part").write_text(" ".join(map(str, pids)))
        (folder / "pids.part").rename(folder / "pids")
        for _ in results:
            pass


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
