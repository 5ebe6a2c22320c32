"""How long does the merge take, and how much memory, for 10^7 and for 10^8 fragments with three times as many pairs?

Simulated fragments and pairs, stored as the stages before it store them. Measured is the whole step of a run: from the
tables of the blocks to the table of ids, at once in memory, or by super-blocks; in a process of its own, with its
workers. Both ways must give the same ids, and the instances that were simulated. Targets: 10^7 under 60 s and 4 GB,
10^8 under 6 GB in any process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.label_run import executor_of, worker_peaks
from benchmarks.made_maps import VOXEL_SIZE_NM, MirroredTile
from benchmarks.simulated_fragments import CONNECTIVITY, Fragments, StoreStage
from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.executor import run_stage
from pipeline.engine.step import Step, run_step
from pipeline.geometry import vec3
from pipeline.grid import BlockGrid
from pipeline.image.maps import Maps
from pipeline.instances.labelling import MERGE_AT_ONCE, Labelling
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.instances.steps import instance_steps
from pipeline.store.tables import open_table

# Blocks a side, fragments a block (of about 2^25 voxels, as by default): 10^7 and 10^8 in all.
SIZES = ((11, 7520), (24, 7240))
IN_MEMORY_UP_TO = 2 * 10**7
BLOCK = vec3((320, 320, 320))
CHECKED_BLOCKS = 50
PLAN = instance_plan(InstanceSettings(grow="none", minimum_voxels=0, connectivity=CONNECTIVITY), VOXEL_SIZE_NM, None)


@dataclass(frozen=True, slots=True)
class Case:
    """A merge of the tables in ``folder``: by super-blocks of about ``at_once`` fragments, or all at once (0)."""

    side: int
    slots: int
    at_once: int
    workers: int
    folder: str

    @property
    def fragments(self) -> Fragments:
        """What is simulated."""
        extent = vec3(self.side * length for length in BLOCK)
        return Fragments(BlockGrid(extent, BLOCK), self.slots)

    @property
    def count(self) -> int:
        """Fragments in all."""
        return self.side**3 * self.slots

    def steps(self) -> dict[str, Step]:
        """The steps of a run in that folder."""
        grid = self.fragments.grid
        never_read: Any = MirroredTile("", grid.extent, BLOCK)
        at_once = self.at_once or self.count
        labelling = Labelling(RunDirectory(Path(self.folder)), grid, BLOCK, PLAN, merge_at_once=at_once)
        steps, _, _ = instance_steps(labelling, Maps(never_read, never_read, "simulated"))
        return {step.name: step for step in steps}

    def store(self) -> None:
        """Store what labelling and stitching would have left behind."""
        directory = RunDirectory(Path(self.folder))
        with executor_of(self.workers) as executor:
            for step in (self.steps()[name] for name in ("label", "stitch")):
                stage: Any = step.stages[0]
                tables = stage.labels.tables if step.name == "label" else stage.pairs
                stored = StoreStage(stage.name, stage.fingerprint, self.fragments, tables)
                with open_ledger(directory, stage) as ledger:
                    run_stage(stored, ledger, executor)
                step.finish()

    def run(self) -> dict[str, Any]:
        """Merge here; measure."""
        merge, directory = self.steps()["merge"], RunDirectory(Path(self.folder))
        with executor_of(self.workers) as executor:
            report.reset_peak()
            started = time.perf_counter()
            run_step(directory, merge, executor)
            seconds = time.perf_counter() - started
            peaks = [report.peak_bytes(), *worker_peaks(executor)]
        with open_ledger(directory, self.steps()["stitch"].stages[0]) as ledger:
            pairs = int(ledger.counts.sum())
        return {
            "fragments": self.count,
            "pairs": pairs,
            "blocks": self.side**3,
            "how": f"super-blocks of {self.at_once}" if self.at_once else "all at once",
            "super_blocks": sum(len(stage.grid) for stage in merge.all_stages()),
            "seconds": round(seconds, 2),
            "us_a_fragment": round(seconds / self.count * 1e6, 3),
            "peak_mb": [round(peak / 1e6) for peak in peaks],
        }

    def run_apart(self) -> dict[str, Any]:
        """Merge in a process of its own."""
        command = [sys.executable, "-m", "benchmarks.merge_scale", "--case", json.dumps(asdict(self))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return row

    def table(self) -> Path:
        """The table that a merge wrote."""
        (path,) = (Path(self.folder) / "tables").glob("merge-*.npy")
        return path


def require_right(ids: npt.NDArray[np.uint64], fragments: Fragments) -> int:
    """Stop unless there are as many instances as simulated, and fragments share an id where they should; the number."""
    found = max(int(ids[at : at + 2**24].max()) for at in range(0, len(ids), 2**24))
    if found != fragments.instances():
        raise AssertionError(f"{found} instances, {fragments.instances()} were simulated")
    rng, grid = np.random.default_rng(0), fragments.grid
    for number in rng.integers(0, len(grid), CHECKED_BLOCKS):
        block = grid[int(number)]
        for index in fragments.neighbours(block.index):
            own, other = (ids[n * fragments.slots :][: fragments.slots] for n in (number, grid.number_of(index)))
            same = (fragments.cells(index) == fragments.cells(block.index)).all(axis=0)
            if not np.array_equal(own == other, same):
                raise AssertionError(f"fragments of blocks {block.index} and {index} are joined wrongly")
    return found


def measure(
    side: int, slots: int, at_once: int, workers: int, run: Callable[[Case], dict[str, Any]]
) -> list[dict[str, Any]]:
    """One size: at once where that is fair, then by super-blocks."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = (
            Case(side, slots, 0, 0, folder),
            Case(side, slots, min(at_once, side**3 * slots // 2), workers, folder),
        )
        parts.store()
        expected = None
        if whole.count <= IN_MEMORY_UP_TO:
            rows.append(run(whole))
            expected = np.load(whole.table())
            whole.table().unlink()
        rows.append(run(parts))
        ids = open_table(parts.table())
        if expected is not None and not np.array_equal(ids, expected):
            raise AssertionError("the two ways give different ids")
        instances = require_right(ids, parts.fragments)
    return [{**row, "instances": instances} for row in rows]


def main(
    sizes: Sequence[tuple[int, int]] = SIZES,
    at_once: int = MERGE_AT_ONCE,
    workers: int = 2,
    results: Path = report.RESULTS,
    run: Callable[[Case], dict[str, Any]] = Case.run_apart,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON."""
    rows = [row for side, slots in sizes for row in measure(side, slots, at_once, workers, run)]
    print(report.table(rows))
    print("targets: 10^7 under 60 s and 4000 MB, 10^8 under 6000 MB in any process (driver, then workers)")
    report.write("merge_scale", rows, results)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, help="blocks a side, instead of 11 and 24")
    parser.add_argument("--slots", type=int, default=7520, help="fragments a block")
    parser.add_argument("--workers", type=int, default=2, help="processes for super-blocks; 0: two threads of one")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(Case(**json.loads(given.case)).run()))
    else:
        main(SIZES if given.side is None else [(given.side, given.slots)], workers=given.workers)
