"""What does labelling block by block, zarr to zarr, cost against cc3d on the same seeds in memory? At most 8 times.

Made maps of 512^3 voxels, about a tenth of them seeds, in blocks of 128^3. Every repetition starts from the stored maps
in an empty run directory and ends with the stored uint64 segmentation and the instance table; without growth, the
segmentation must equal cc3d's voxel for voxel. Growth, at its default of 60 nm, has no counterpart in cc3d.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
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
import pyarrow.parquet as parquet
from scipy import ndimage

from benchmarks import report
from pipeline.config import InstanceSettings
from pipeline.executor import Executor, ThreadsExecutor, run_stage
from pipeline.formats.ome_zarr import use_fast_codecs
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.ops.label import seeds
from pipeline.ops.resample import coarse_extent, interpolate
from pipeline.plan import InstancePlan, chunk_shape, instance_plan
from pipeline.run import RunDirectory, Step, create_if_missing, open_ledger, stored_volume
from pipeline.steps import Labelling, Maps, instance_steps
from pipeline.volume import Volume

SHAPE, BLOCK = (512, 512, 512), (128, 128, 128)
VOXEL_SIZE_NM = (10.0, 10.0, 10.0)
TARGET = 8.0
STEPS = ("label", "stitch", "merge", "grow", "relabel")
# Blobs: white noise smoothed on a grid of an eighth, then interpolated; some 40 voxels across, as mitochondria are.
COARSE, SMOOTH, ABOVE = (8, 8, 8), 1.7, 0.83
STEEPNESS = 300.0


@dataclass(slots=True)
class Measured:
    """Seconds of each step and added peak memory (bytes) of the repetitions of one row."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: list[int] = field(default_factory=list)
    instances: int = 0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to the last repetition of ``name``."""
        started = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Note by how much the peak memory of this process rises above what it holds now (Linux)."""
        before = report.resident_bytes()
        Path("/proc/self/clear_refs").write_text("5")
        yield
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        self.peaks.append(peak - before)

    def median(self, name: str) -> float:
        """Median over the repetitions; 0 for a step that this row does not have."""
        return statistics.median(self.seconds.get(name, [0.0]))


@dataclass(frozen=True, slots=True)
class Made:
    """The made input."""

    maps: Maps
    grid: BlockGrid


def made_maps(folder: Path, shape: Vec3, block: Vec3) -> Made:
    """Semantic and boundary maps in ``folder``; kept where they are there already."""
    grid = BlockGrid(shape, block)
    like = Volume("", "", "zarr", shape, "uint8", block, VOXEL_SIZE_NM)
    semantic, boundary = (
        stored_volume(str(folder / name), grid, "uint8", like, chunk_shape(block)) for name in ("semantic", "boundary")
    )
    done = folder / "made"
    if not done.exists():
        create_if_missing(semantic, grid)
        create_if_missing(boundary, grid)
        _fill(semantic, boundary, grid)
        done.touch()
    return Made(Maps(semantic, boundary, "made"), grid)


def _fill(semantic: Volume, boundary: Volume, grid: BlockGrid) -> None:
    noise = np.random.default_rng(0).standard_normal(coarse_extent(grid.extent, COARSE), np.float32)
    coarse = ndimage.gaussian_filter(noise, SMOOTH)
    coarse = (coarse - np.quantile(coarse, ABOVE)) * np.float32(STEEPNESS / coarse.std())
    for block in grid:
        depth = interpolate(coarse, Box.of_shape(coarse.shape), block.core, COARSE)
        semantic.write(block.core, np.clip(128 + depth, 0, 255).astype(np.uint8))
        boundary.write(block.core, np.clip(255 - np.abs(depth), 0, 255).astype(np.uint8))


def all_seeds(maps: Maps, plan: InstancePlan) -> npt.NDArray[np.bool_]:
    """The seeds of the whole volume, in memory."""
    semantic, boundary = maps.semantic.read(maps.semantic.box), maps.boundary.read(maps.boundary.box)
    return seeds(semantic, boundary, plan.seed_above, plan.boundary_below)


def label_in_memory(found: npt.NDArray[np.bool_], measured: Measured) -> npt.NDArray[Any]:
    """cc3d's components of the seeds (timed), renumbered by their first voxels (not timed)."""
    with measured.memory(), measured.timed("label"):
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
    with measured.memory():
        for step in steps:
            _run_step(directory, step, executor, measured)
    measured.instances = len(parquet.read_table(directory.instances, columns=["id"]))
    return segmentation


def _run_step(directory: RunDirectory, step: Step, executor: Executor, measured: Measured) -> None:
    """As ``pipeline.run.run_step``, with the merge after the stitching timed on its own."""
    with measured.timed(step.name):
        step.prepare()
        for stage in step.stages:
            with open_ledger(directory, stage) as ledger:
                run_stage(stage, ledger, executor)
        if step.name != "stitch":
            step.finish()
    if step.name == "stitch":
        with measured.timed("merge"):
            step.finish()


def require_equal(segmentation: Volume, expected: npt.NDArray[Any], grid: BlockGrid) -> None:
    """Stop where the stored ids are not those of ``expected``."""
    for block in grid:
        if not np.array_equal(segmentation.read(block.core), expected[block.core.slices()]):
            raise AssertionError(f"block {block.core} differs from cc3d on the whole volume")


def row(name: str, measured: Measured, voxels: int, cc3d_s: float) -> dict[str, Any]:
    """One row of the table; seconds are medians."""
    total = sum(measured.median(step) for step in STEPS)
    return {
        "what": name,
        **{f"{step}_s": round(measured.median(step), 5) for step in STEPS},
        "total_s": round(total, 5),
        "ratio_to_cc3d": round(total / cc3d_s, 2),
        "mvx_a_s": round(voxels / total / 1e6, 1),
        "peak_rss_mb_added": round(max(measured.peaks) / 1e6),
        "instances": measured.instances,
    }


def measure(folder: Path, shape: Vec3, block: Vec3, threads: int, repeats: int) -> list[dict[str, Any]]:
    """All rows; each repetition runs all of them, one after another."""
    made = made_maps(folder / "maps", shape, block)
    plain = instance_plan(InstanceSettings(grow="none", minimum_voxels=0), VOXEL_SIZE_NM, None)
    growing = instance_plan(InstanceSettings(), VOXEL_SIZE_NM, None)
    found = all_seeds(made.maps, plain)
    whole = Measured()
    cases = {
        "blocks, 1 thread": (plain, ThreadsExecutor(1), Measured()),
        f"blocks, {threads} threads": (plain, ThreadsExecutor(threads), Measured()),
        f"and growth, {threads} threads": (growing, ThreadsExecutor(threads), Measured()),
    }
    for _ in range(repeats):
        expected = label_in_memory(found, whole)
        for plan, executor, measured in cases.values():
            segmentation = label_blockwise(folder / "run", made, plan, executor, measured)
            if plan is plain:
                require_equal(segmentation, expected, made.grid)
    voxels, cc3d_s = Box.of_shape(shape).size, whole.median("label")
    named = {"cc3d in memory": whole, **{name: measured for name, (_, _, measured) in cases.items()}}
    share = round(float(found.mean()), 3)
    return [{**row(name, each, voxels, cc3d_s), "seeds": share, "repeats": repeats} for name, each in named.items()]


def main(
    shape: Vec3 = SHAPE,
    block: Vec3 = BLOCK,
    threads: int = 2,
    repeats: int = 3,
    folder: Path | None = None,
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON; ``folder`` keeps the made maps for the next time."""
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(folder or Path(temporary), shape, block, threads, repeats)
    print(report.table(rows))
    print(f"target: block by block at most {TARGET:g} times cc3d")
    report.write("labels", rows, results)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--block", type=int, nargs=3, default=BLOCK)
    parser.add_argument("--threads", type=int, default=2, help="blocks at a time, in this one process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept afterwards, with the made maps")
    given = parser.parse_args()
    use_fast_codecs()
    main(vec3(given.shape), vec3(given.block), given.threads, given.repeats, given.folder)
