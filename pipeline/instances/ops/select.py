"""Which whole instances stay: by size, at the border of the volume, by their share inside the tissue."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Vec3
from pipeline.instances.ops.fragments import Rows
from pipeline.instances.plan import InstancePlan

FINEST_SHARE = 10**6  # shares are exact to a millionth: 0.1 of 30 voxels is 3, not the 3.0000000000000004 of doubles


def kept(rows: Rows, extent: Vec3, plan: InstancePlan, *, tissue: bool = False) -> NDArray[np.bool_]:
    """Which instances stay.

    Args:
        rows: one ``FRAGMENT`` row for each whole instance (of all its blocks; ``voxels``, ``start``, ``stop`` and
            ``inside`` are used).
        extent: shape of the volume, z y x.
        plan: ``minimum_voxels``, ``drop_border`` and ``tissue_fraction`` are used.
        tissue: whether there is a tissue mask; without one ``inside`` says nothing.

    Returns:
        bool of the length of ``rows``: False for an instance of fewer than ``minimum_voxels`` voxels, for one whose
        bounding box holds the first or last voxel of an axis where ``drop_border`` is set, and for one with less than
        ``tissue_fraction`` of its voxels inside the tissue.
    """
    stays: NDArray[np.bool_] = rows["voxels"] >= plan.minimum_voxels
    if plan.drop_border:
        stays &= ~touches_border(rows, extent)
    if tissue:
        stays &= rows["inside"] >= share(rows["voxels"], plan.tissue_fraction)
    return stays


def touches_border(rows: Rows, extent: Vec3) -> NDArray[np.bool_]:
    """Whether each row's bounding box holds the first or last voxel of an axis of the ``extent`` (z y x)."""
    outermost = (rows["start"] <= 0) | (rows["stop"] >= np.array(extent))
    on_any_axis: NDArray[np.bool_] = np.logical_or.reduce(outermost, axis=1)
    return on_any_axis


def share(counts: NDArray[Any], fraction: float) -> NDArray[np.uint64]:
    """The least integer that is at least ``fraction`` of each count, exactly.

    Args:
        counts: non-negative integers below 2^63.
        fraction: 0..1, taken to the nearest fraction with a denominator of at most ``FINEST_SHARE``.
    """
    exact = Fraction(fraction).limit_denominator(FINEST_SHARE)
    top, bottom = np.uint64(exact.numerator), np.uint64(exact.denominator)
    whole, rest = np.divmod(counts.astype(np.uint64), bottom)  # no product reaches 2^64: top <= bottom <= 10^6
    return whole * top + (rest * top + bottom - np.uint64(1)) // bottom
