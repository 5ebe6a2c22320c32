"""What does labelling block by block, zarr to zarr, cost against cc3d on the same seeds in memory? Target: at most 8 times.

Made maps of 512^3 voxels, about a tenth of them seeds, in blocks of 128^3. Every repetition starts from the stored maps in
an empty run directory, ends with the stored uint64 segmentation and instance table, and must equal cc3d voxel for voxel.
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
# Blobs: white noise smoothed on a grid of an eighth, then interpolated; some 40 voxels across, as mitochondria at 10 nm.
COARSE, SMOOTH, ABOVE = (8, 8, 8), 1.7, 0.83
STEEPNESS = 300.0


@dataclass(slots=True)
class Measured:
    """Seconds of each step and peak memory (bytes) of the repetitions of one row."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: list[int] = field(default_factory=list)
    instances: int = 0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to the last repetition of ``name``."""
        started = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def median(self, name: str) -> float:
        """Median over the repetitions; 0 for a step that this row does not have."""
        return statistics.median(self.seconds.get(name, [0.0]))


def made_maps(folder: Path, shape: Vec3, block: Vec3) -> tuple[Maps, BlockGrid]:
    """Semantic and boundary maps in ``folder``; kept where they are there already."""
    grid = BlockGrid(shape, block)
    like = Volume("", "", "zarr", shape, "uint8", block, VOXEL_SIZE_NM)
    maps = [stored_volume(str(folder / name), grid, "uint8", like, chunk_shape(block)) for name in ("semantic", "boundary")]
    done = folder / "made"
    if not done.exists():
        for volume in maps:
            create_if_missing(volume, grid)
        _fill(maps[0], maps[1], grid)
        done.touch()
    return Maps(maps[0], maps[1], "made"), grid


def _fill(semantic: Volume, boundary: Volume, grid: BlockGrid) -> None:
    noise = np.random.default_rng(0).standard_normal(coarse_extent(grid.extent, COARSE), np.float32)
    coarse = ndimage.gaussian_filter(noise, SMOOTH)
    coarse = (coarse - np.quantile(coarse, ABOVE)) * np.float32(STEEPNESS / coarse.std())
    for block in grid:
        depth = interpolate(coarse, Box.of_shape(coarse.shape), block.core, COARSE)
        semantic.write(block.core, np.clip(128 + depth, 0, 255).astype(np.uint8))
        boundary.write(block.core, np.clip(255 - np.abs(depth), 0, 255).astype(np.uint8))


def in_memory(maps: Maps, plan: InstancePlan) -> tuple[npt.NDArray[Any], Measured]:
    """The seeds of the whole volume, and what cc3d takes for them (peak: its result alone)."""
    semantic, boundary = maps.semantic.read(maps.semantic.box), maps.boundary.read(maps.boundary.box)
    return seeds(semantic, boundary, plan.seed_above, plan.boundary_below), Measured()


def label_in_memory(found: npt.NDArray[Any], measured: Measured) -> npt.NDArray[Any]:
    """cc3d's components of the seeds, renumbered by their first voxels."""
    reset_peak()
    with measured.timed("label"):
        labels = cc3d.connected_components(found, connectivity=6, binary_image=True, out_dtype=np.uint32)
    measured.peaks.append(peak_bytes())
    renumbered, _ = fastremap.renumber(labels, preserve_zero=True, in_place=True)
    measured.instances = int(renumbered.max())
    return np.asarray(renumbered)


def label_blockwise(folder: Path, maps: Maps, grid: BlockGrid, plan: InstancePlan, executor: Executor, measured: Measured) -> Volume:
    """All steps of a run from the maps on, in an empty directory; the segmentation."""
    shutil.rmtree(folder, ignore_errors=True)
    directory = RunDirectory(folder)
    steps, segmentation, _ = instance_steps(Labelling(directory, grid, maps.semantic.chunks, plan), maps)
    reset_peak()
    for step in steps:
        _run_step(directory, step, executor, measured)
    measured.peaks.append(peak_bytes())
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


def reset_peak() -> None:
    """Start counting this process's peak memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most memory of this process in RAM since ``reset_peak`` (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def row(name: str, measured: Measured, voxels: int, cc3d_s: float) -> dict[str, Any]:
    """One row of the table; seconds are medians."""
    steps = {f"{step}_s": round(measured.median(step), 3) for step in STEPS}
    total = sum(measured.median(step) for step in STEPS)
    return {
        "what": name,
        **steps,
        "total_s": round(total, 3),
        "ratio_to_cc3d": round(total / cc3d_s, 2),
        "mvx_a_s": round(voxels / total / 1e6, 1),
        "peak_rss_mb": round(max(measured.peaks) / 1e6),
        "instances": measured.instances,
    }


def measure(folder: Path, shape: Vec3, block: Vec3, threads: int, repeats: int) -> list[dict[str, Any]]:
    """All rows, the repetitions of one beside those of the others."""
    maps, grid = made_maps(folder / "maps", shape, block)
    plain = instance_plan(InstanceSettings(grow="none", minimum_voxels=0), VOXEL_SIZE_NM, None)
    growing = instance_plan(InstanceSettings(), VOXEL_SIZE_NM, None)
    found, whole = in_memory(maps, plain)
    blockwise, grown = Measured(), Measured()
    executor = ThreadsExecutor(threads)
    for _ in range(repeats):
        expected = label_in_memory(found, whole)
        segmentation = label_blockwise(folder / "plain", maps, grid, plain, executor, blockwise)
        require_equal(segmentation, expected, grid)
        blockwise.instances = whole.instances
        segmentation = label_blockwise(folder / "grown", maps, grid, growing, executor, grown)
        grown.instances = max(int(segmentation.read(each.core).max()) for each in grid)
    cc3d_s = whole.median("label")
    named = {"cc3d in memory": whole, "block by block": blockwise, "with growth (60 nm)": grown}
    share = round(float(found.mean()), 3)
    voxels = Box.of_shape(shape).size
    rows = [row(name, measured, voxels, cc3d_s) for name, measured in named.items()]
    return [{**each, "seeds": share, "repeats": repeats, "threads": threads} for each in rows]


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
