"""The steps of a run from two maps to the stored segmentation, timed one by one, and cc3d on the same seeds."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cc3d
import fastremap
import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.made_maps import Made
from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.executor import Executor, ThreadsExecutor, run_stage
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.step import Step
from pipeline.instances.labelling import Labelling
from pipeline.instances.plan import InstancePlan
from pipeline.instances.steps import instance_steps
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor

# What the rows name, in the order of a run; "grow" is what stands between merging and relabelling.
PARTS = ("label", "stitch", "merge", "grow", "relabel")
TABLE = "table"  # the instance table and what it measures: no other tool makes one, so it is named on its own


@dataclass(slots=True)
class Measured:
    """Seconds of each part and added peak memory (bytes) of the repetitions of one row."""

    repetitions: list[dict[str, float]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    instances: int = 0

    @contextmanager
    def repetition(self) -> Iterator[None]:
        """One more repetition; notes by how much the peak memory of this process rises above what it holds (Linux)."""
        self.repetitions.append({})
        before = report.resident_bytes()
        report.reset_peak()
        yield
        self.peaks.append(report.peak_bytes() - before)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of the context to a part of this repetition."""
        started = time.perf_counter()
        yield
        seconds = self.repetitions[-1]
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started

    def median(self, *parts: str) -> float:
        """Median over the repetitions of the sum of some parts; parts that this row does not have count 0."""
        return statistics.median(sum(seconds.get(part, 0.0) for part in parts) for seconds in self.repetitions)

    def row(self, name: str, voxels: int) -> dict[str, Any]:
        """Medians of the parts and of their sum, as a row of a table."""
        total = self.median(*PARTS)
        return {
            "what": name,
            **{f"{part}_s": round(self.median(part), 5) for part in PARTS},
            "total_s": round(total, 5),
            "mvx_a_s": round(voxels / total / 1e6, 1),
            "table_s": round(self.median(TABLE), 5),
            "repeats": len(self.repetitions),
            "instances": self.instances,
        }


def label_in_memory(found: npt.NDArray[np.bool_], measured: Measured) -> npt.NDArray[Any]:
    """cc3d's components of the seeds, 6-connected (timed), renumbered by their first voxels (not timed)."""
    with measured.repetition(), measured.timed("label"):
        labels = cc3d.connected_components(found, connectivity=6, binary_image=True, out_dtype=np.uint32)
    renumbered, _ = fastremap.renumber(labels, preserve_zero=True, in_place=True)
    measured.instances = int(renumbered.max())
    return np.asarray(renumbered)


def label_blockwise(folder: Path, made: Made, plan: InstancePlan, executor: Executor, measured: Measured) -> Volume:
    """All steps of a run from the maps on, in an empty directory; the segmentation."""
    shutil.rmtree(folder, ignore_errors=True)
    directory = RunDirectory(folder)
    labelling = Labelling(directory, made.grid, made.maps.semantic.chunks, plan)
    steps, segmentation, _ = instance_steps(labelling, made.maps)
    with measured.repetition():
        for step in steps:
            _run_step(directory, step, executor, measured)
    measured.instances = _highest_id(directory)
    return segmentation


def _run_step(directory: RunDirectory, step: Step, executor: Executor, measured: Measured) -> None:
    """As ``pipeline.engine.directory.run_step``, timed."""
    part = step.name if step.name in PARTS else "grow"
    with measured.timed(part):
        step.prepare()
    for stage in step.all_stages():
        with measured.timed(TABLE if stage.name == "measure" else part), open_ledger(directory, stage) as ledger:
            run_stage(stage, ledger, executor)
    with measured.timed(TABLE if part == "relabel" else part):
        step.finish()


def _highest_id(directory: RunDirectory) -> int:
    """The number of instances, from the table of final ids (the last one written)."""
    tables = [*directory.root.glob("tables/merge-*.npy"), *directory.root.glob("tables/final-*.npy")]
    last = max(tables, key=lambda path: path.stat().st_mtime_ns)
    return int(np.max(open_table(last), initial=0))


@contextmanager
def executor_of(workers: int) -> Iterator[Executor]:
    """Worker processes, or two threads of this process."""
    if not workers:
        yield ThreadsExecutor(2)
        return
    with open_executor(ClusterSettings(kind="local", workers=workers, threads_per_worker=1)) as executor:
        yield executor


def worker_peaks(executor: Executor) -> list[int]:
    """Peak memory (bytes) of each worker process since it started."""
    return list(executor.client.run(report.peak_bytes).values()) if isinstance(executor, DaskExecutor) else []
