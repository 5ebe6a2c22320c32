"""What does denoising cost beside the prediction? Seconds of its stages over those of the predict stage.

``python -m benchmarks.denoise_cost [--volumes phantom lucchi]``: detection as it is (``auto``), then hand-made masks:
1 % of the voxels in squares of half a micrometre on lone slices; and 16 of 17 slices wholly, the most that is
interpolated, with gaps as wide as ``denoise.max_gap`` can be. ``--noise2noise M`` adds a restorer that replaces every
slice without a mask. One process, one block after another, seconds of read, compute and write with the networks loaded
before; a GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.damage import run_config
from benchmarks.damaged_volumes import SEED, VOLUMES, Labelled, UInt8, stored
from flows.drive import run_bare
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume

SQUARE_NM = 500.0
SHARE = 0.01
WIDEST_GAP = 16

Row = dict[str, Any]


def main(
    volumes: Sequence[Labelled],
    noise2noise: str | None = None,
    settings: dict[str, Any] | None = None,
    results: Path = report.RESULTS,
) -> list[Row]:
    """Measure, print the table, write the JSON: one row a volume and way.

    Args:
        volumes: what is run over.
        noise2noise: a restorer of that kind, by name or path.
        settings: further settings of the runs.
        results: where the JSON goes.
    """
    rows = []
    for volume in volumes:
        for way, denoise, mask in ways(volume, noise2noise):
            rows.append(measured(volume, way, denoise, mask, settings or {}))
    print(report.table(rows))
    report.write("denoise_cost", rows, results)
    return rows


def ways(volume: Labelled, noise2noise: str | None) -> Iterator[tuple[str, dict[str, Any], UInt8 | None]]:
    """Name, settings of ``denoise``, and mask of each row."""
    shape = volume.raw.shape
    nearly_all = np.ones(shape, np.uint8)
    nearly_all[WIDEST_GAP // 2 :: WIDEST_GAP + 1] = 0
    yield "detection", {}, None
    yield "1 %", {}, squares(vec3(shape), volume.voxel_size_nm)
    yield "16 of 17 slices", {"max_gap": WIDEST_GAP}, nearly_all
    if noise2noise is not None:
        yield "noise2noise", {"model": noise2noise}, None


def squares(shape: Vec3, voxel_size_nm: FloatVec3) -> UInt8:
    """A mask (z, y, x) with one percent of the voxels in squares, on every second slice; at least one square."""
    mask = np.zeros(shape, np.uint8)
    side = [min(n, max(1, round(SQUARE_NM / size))) for n, size in zip(shape[1:], voxel_size_nm[1:], strict=True)]
    random = np.random.default_rng(SEED)
    while mask.mean() < SHARE:
        z = 2 * random.integers(0, (shape[0] + 1) // 2)
        y, x = (random.integers(0, n - s + 1) for n, s in zip(shape[1:], side, strict=True))
        mask[z, y : y + side[0], x : x + side[1]] = 1
    return mask


def measured(volume: Labelled, way: str, denoise: dict[str, Any], mask: UInt8 | None, settings: dict[str, Any]) -> Row:
    """One run, its seconds by stage."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        size = volume.voxel_size_nm
        masked = {} if mask is None else {"mask": stored(place / "mask", mask, size)}
        chosen = {**settings, "denoise": {**settings.get("denoise", {}), **denoise, **masked}}
        config = run_config(stored(place / "raw", volume.raw, size), place / "run", chosen, "auto")
        made = run_bare(run_job(config)[0], None)
        assert made is not None  # the directory is new
        replaced = open_volume(str(place / "run/arrays/replaced"))
        share = float((replaced.read(replaced.box) > 0).mean())
    seconds = {stage["stage"]: sum(stage["seconds"]) for stage in made["stages"]}
    found = sum(seconds.get(name, 0.0) for name in ("inspect", "compare", "damage"))
    return {
        "volume": volume.name,
        "voxels": "x".join(map(str, volume.raw.shape)),
        "flagged": way,
        "replaced": round(share, 4),
        "detection_s": round(found, 3),
        "restore_s": round(seconds["restore"], 3),
        "predict_s": round(seconds["predict"], 3),
        "of_predict": round((found + seconds["restore"]) / seconds["predict"], 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", nargs="+", choices=VOLUMES, default=["phantom", "lucchi"])
    parser.add_argument("--noise2noise", help="a restorer's name or path")
    parser.add_argument("--quick", action="store_true", help="the middle of the plane")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    chosen = [VOLUMES[name]() for name in given.volumes]
    main([volume.quick() for volume in chosen] if given.quick else chosen, given.noise2noise, results=given.results)
