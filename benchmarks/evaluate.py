"""How fast is a segmentation compared with a truth, block by block, against reading the two volumes alone?

``python -m benchmarks.evaluate``: two uint64 volumes of balls (about a tenth of the voxels, 20 instances in 128^3),
the prediction moved by two voxels, OME-Zarr in chunks of 128^3. The time includes the stored tables of overlaps, their
sum, and all scores. Two sizes: memory and time a voxel must not grow with the volume.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from pipeline.engine.executor import ThreadsExecutor
from pipeline.evaluation.blockwise import evaluate
from pipeline.geometry import Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume

SIDES = (256, 512)
CHUNK = 128
BALLS = 20  # in a chunk; those drawn later cut into earlier ones


def main(
    sides: Sequence[int] = SIDES, chunk: int = CHUNK, repeats: int = 3, results: Path = report.RESULTS
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON: one row a size and way."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            rows += measured(Path(folder) / str(side), vec3([side] * 3), chunk, repeats)
    print(report.table(rows))
    report.write("evaluate", rows, results)
    return rows


def measured(folder: Path, shape: Vec3, chunk: int, repeats: int) -> list[dict[str, Any]]:
    """The rows of one size; the ways take turns."""
    prediction, truth = made(folder, shape, chunk)
    found: dict[str, float] = {}
    grid = BlockGrid(shape, vec3([chunk] * 3))

    def compare(threads: int) -> Callable[[], None]:
        return lambda: found.update(evaluate(prediction, truth, executor=ThreadsExecutor(threads)))

    def read() -> None:
        for block in grid:
            prediction.read(block.core), truth.read(block.core)

    ways = {"read both, 1 thread": read, "evaluate, 1 thread": compare(1), "evaluate, 2 threads": compare(2)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks = dict.fromkeys(ways, 0)
    for _ in range(repeats):
        for way, work in ways.items():
            report.reset_peak()
            before, started = report.resident_bytes(), time.perf_counter()
            work()
            seconds[way].append(time.perf_counter() - started)
            peaks[way] = max(peaks[way], report.peak_bytes() - before)
    return [
        {
            "voxels": "x".join(map(str, shape)),
            "what": way,
            "seconds": round(statistics.median(taken), 3),
            "mvoxel_s": round(truth.box.size / statistics.median(taken) / 1e6, 1),
            "peak_rss_mb_added": round(peaks[way] / 1e6),
            "instances": int(found["instances_truth"]),
        }
        for way, taken in seconds.items()
    ]


def made(folder: Path, shape: Vec3, chunk: int) -> tuple[Volume, Volume]:
    """Prediction and truth, stored; every chunk is the same tile with ids of its own."""
    tile = balls(chunk)
    sides = []
    for name, labels in (("prediction", np.roll(tile, 2, 0)), ("truth", tile)):
        url = str(folder / name)
        ome_zarr.create(url, shape, shape, vec3([chunk] * 3), "uint64", (8.0, 8.0, 8.0))
        volume = open_volume(url)
        for block in BlockGrid(shape, vec3([chunk] * 3)):
            ids = np.where(labels > 0, labels + np.uint64(BALLS * block.number), np.uint64(0))
            volume.write(block.core, ids[block.core.slices(block.core.start)])
        sides.append(volume)
    return sides[0], sides[1]


def balls(side: int) -> NDArray[np.uint64]:
    """Balls of different sizes at random places in a cube, about a tenth of its voxels; uint64 ids 1, 2, ..."""
    random = np.random.default_rng(0)
    tile = np.zeros([side] * 3, np.uint64)
    axes = np.ogrid[:side, :side, :side]
    for identity in range(1, BALLS + 1):
        centre, radius = random.uniform(0, side, 3), side * random.uniform(0.06, 0.15)
        squares = [(axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)]
        tile[sum(squares) < radius**2] = identity
    return tile


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sides", type=int, nargs="*", default=SIDES, help="voxels of the cubes, multiples of 128")
    main(parser.parse_args().sides)
