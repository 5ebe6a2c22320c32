"""What does labelling block by block, zarr to zarr, cost against cc3d on the same seeds in memory? At most 4 times.

Made maps of 512^3 voxels, about a tenth of them seeds, in blocks of 128^3. Every repetition starts from the stored maps
in an empty run directory and ends with the stored uint64 segmentation and the instance table; without growth, the
segmentation must equal cc3d's voxel for voxel. Growth, at its default of 60 nm, has no counterpart in cc3d.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.label_run import Measured, label_blockwise, label_in_memory
from benchmarks.made_maps import VOXEL_SIZE_NM, all_seeds, made_maps
from pipeline.engine.executor import ThreadsExecutor
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.store.volume import Volume

SHAPE, BLOCK = vec3((512, 512, 512)), vec3((128, 128, 128))
TARGET = 4.0


def require_equal(segmentation: Volume, expected: npt.NDArray[Any], grid: BlockGrid) -> None:
    """Stop where the stored ids are not those of ``expected``."""
    for block in grid:
        if not np.array_equal(segmentation.read(block.core), expected[block.core.slices()]):
            raise AssertionError(f"block {block.core} differs from cc3d on the whole volume")


def row(name: str, measured: Measured, voxels: int, cc3d_s: float) -> dict[str, Any]:
    """One row of the table; seconds are medians."""
    shared = measured.row(name, voxels)
    ratio = round(shared["total_s"] / cc3d_s, 2)
    return {**shared, "ratio_to_cc3d": ratio, "peak_rss_mb_added": round(max(measured.peaks) / 1e6)}


def measure(folder: Path, shape: Vec3, block: Vec3, threads: int, repeats: int) -> list[dict[str, Any]]:
    """All rows; each repetition runs all of them, one after another."""
    made = made_maps(folder / "maps", shape, block)
    plain = instance_plan(InstanceSettings(grow="none", minimum_voxels=0), VOXEL_SIZE_NM, None)
    growing = instance_plan(InstanceSettings(), VOXEL_SIZE_NM, None)
    found = all_seeds(made.maps, plain, made.grid)
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
    return [{**row(name, each, voxels, cc3d_s), "seeds": share} for name, each in named.items()]


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
    print(f"target: block by block at most {TARGET:g} times cc3d, without growth")
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
    main(vec3(given.shape), vec3(given.block), given.threads, given.repeats, given.folder)
