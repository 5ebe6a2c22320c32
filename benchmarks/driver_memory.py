"""What do blocks cost the driver? No-op blocks through the Dask executor and the ledger: seconds and memory.

The scheduler lives in the driver's process here, so that its memory is counted too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from pipeline.engine.executor import Executor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.stage import BlockResult
from pipeline.grid import Block, BlockGrid
from workers.cluster import open_executor

BLOCKS = 100_000
WARM_UP_BLOCKS = 200


@dataclass(frozen=True, slots=True)
class NoOp:
    """A stage whose blocks do nothing, for ``seconds`` each."""

    blocks: int
    name: str
    seconds: float = 0.0

    @property
    def grid(self) -> BlockGrid:
        """A row of blocks of one voxel."""
        return BlockGrid((1, 1, self.blocks), (1, 1, 1))

    @property
    def fingerprint(self) -> str:
        """Its name is all there is to it."""
        return self.name

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Wait and count one."""
        if self.seconds:
            time.sleep(self.seconds)
        return BlockResult(block.number, 1)


def measure(executor: Executor, stage: NoOp, folder: Path) -> dict[str, Any]:
    """Run the stage; seconds, and what the resident memory of this process grew by (bytes)."""
    with Ledger(folder / f"{stage.name}.ledger", stage.name, stage.fingerprint, stage.blocks) as ledger:
        before, started = report.resident_bytes(), time.perf_counter()
        run_stage(stage, ledger, executor)
        seconds, added = time.perf_counter() - started, report.resident_bytes() - before
    return {
        "stage": stage.name,
        "blocks": stage.blocks,
        "seconds": round(seconds, 2),
        "us_a_block": round(seconds / stage.blocks * 1e6, 1),
        "driver_mb_added": round(added / 1e6, 1),
        "bytes_a_block": round(added / stage.blocks),
    }


def main(blocks: int = BLOCKS, results: Path = report.RESULTS) -> list[dict[str, Any]]:
    """Measure ``blocks`` no-op blocks, and a hundredth of them with 5 ms each; print and write a table."""
    stages = [NoOp(blocks, "noop"), NoOp(max(1, blocks // 100), "five-ms", 0.005)]
    with tempfile.TemporaryDirectory() as folder, open_executor(ClusterSettings(workers=2)) as executor:
        measure(executor, NoOp(WARM_UP_BLOCKS, "warm-up"), Path(folder))
        rows = [measure(executor, stage, Path(folder)) for stage in stages]
    print(report.table(rows))
    report.write("driver_memory", rows, results)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    main(parser.parse_args().blocks)
