"""How near does a restorer come to slices it never saw? PSNR and SSIM beside mean and nearest neighbour.

``python -m benchmarks.interpolation [--restorer NAME]``, on slices below ``$TERAMITO_DATA`` that the shipped one was
neither trained nor selected on. Whole slices are hidden and made as a run makes them, lone ones and gaps of two and
three; each is hidden about once. ``mean`` is weighted by nearness, ``nearest`` the slice before where two are as near.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks import report
from pipeline.model.restorer import LoadedRestorer, load_restorer
from pipeline.training.restoration.validation import Case, Slices, cases, psnr
from pipeline.training.restoration.volumes import load_stack
from pipeline.training.sources import RawSource

RESTORER = "interpolation-v1"
GAPS = (1, 2, 3)
HELD_OUT = (
    RawSource(raw="${TERAMITO_DATA}/lucchi/train_raw.tif", z_range=(132, 165), voxel_size_nm=(5.0, 5.0, 5.0)),
    RawSource(raw="${TERAMITO_DATA}/drosophila_vnc/stack1_raw.tif", z_range=(14, 20), voxel_size_nm=(50.0, 4.6, 4.6)),
    RawSource(raw="${TERAMITO_DATA}/sbem_mouse/train_raw.tif", z_range=(20, 30), voxel_size_nm=(40.0, 10.0, 10.0)),
)
WAYS = ("restorer", "mean", "nearest")
_SIGMA, _RADIUS = 1.5, 5


def main(
    restorer: str | Path = RESTORER,
    volumes: Sequence[RawSource] = HELD_OUT,
    gaps: Sequence[int] = GAPS,
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON.

    Args:
        restorer: a shipped name or the path of a specification.
        volumes: of held-out slices.
        gaps: numbers of slices hidden together; noise2noise has one kind of case only.
        results: where the JSON goes.

    Returns:
        One row a volume and gap.
    """
    loaded = load_restorer(restorer)
    widths = gaps if loaded.spec.channels == 2 else (1,)
    rows = []
    for volume in volumes:
        stack = load_stack(volume)
        rows += [
            {"volume": stack.name, "restorer": loaded.spec.name, **row}
            for gap in widths
            if (row := measured(loaded, stack.raw, gap))
        ]
    print(report.table(rows))
    report.write("interpolation", rows, results)
    return rows


def measured(restorer: LoadedRestorer, raw: Slices, gap: int) -> dict[str, Any]:
    """Mean PSNR and SSIM of each way over the hidden slices of a volume (z, y, x); empty where it has too few."""
    found = [_scores(case, restorer) for case in list(cases(raw, restorer.spec.channels, gap))[::gap]]
    if not found:
        return {}
    decibels, similar = (np.concatenate(values, axis=1) for values in zip(*found, strict=True))
    own, mean, nearest = decibels.mean(axis=1)
    return {
        "gap": gap,
        "slices": decibels.shape[1],
        **{f"psnr_{way}": round(float(value), 3) for way, value in zip(WAYS, (own, mean, nearest), strict=True)},
        "gain_over_mean_db": round(float(own - mean), 3),
        "gain_over_nearest_db": round(float(own - nearest), 3),
        "least_gain_over_mean_db": round(float((decibels[0] - decibels[1]).min()), 3),
        **{f"ssim_{way}": round(float(v), 4) for way, v in zip(WAYS, similar.mean(axis=1), strict=True)},
    }


def _scores(case: Case, restorer: LoadedRestorer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PSNR and SSIM, each (way, slice)."""
    spec = restorer.spec
    made = case.restored(restorer, spec.patch, spec.overlap, spec.multiple)
    ways = (made, *case.simple())
    similar = [[ssim(a, b) for a, b in zip(images, case.truth, strict=True)] for images in ways]
    return np.array([psnr(images, case.truth) for images in ways]), np.array(similar)


def ssim(image: Slices, truth: Slices) -> float:
    """Structural similarity of two images (y, x) uint8: Wang et al. 2004, 11x11 Gaussian windows of sigma 1.5.

    The mean over the windows that lie inside the image; constants 0.01 and 0.03 of the range of 255.
    """
    first, second = image.astype(np.float64), truth.astype(np.float64)
    a, b = _local(first), _local(second)
    spread = _local(first**2) - a**2 + _local(second**2) - b**2
    common = _local(first * second) - a * b
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * a * b + low) * (2 * common + high) / ((a**2 + b**2 + low) * (spread + high))
    return float(values[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())


def _local(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(values, _SIGMA, radius=_RADIUS), np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restorer", default=RESTORER, help="a shipped name or the path of a specification")
    parser.add_argument("--gaps", type=int, nargs="+", default=list(GAPS), help="slices hidden together")
    arguments = parser.parse_args()
    main(arguments.restorer, gaps=arguments.gaps)
