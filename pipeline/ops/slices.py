"""Slices made alike: the jumps of brightness and contrast from section to section, evened out.

Every slice has a gain and an offset, computed once for the whole volume from the grey levels of its cells: their median
and the range of their middle half, which damage of less than a quarter of a slice hardly moves, are brought to those of
the slices around it. What changes slowly, the tissue itself, stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

WINDOW = 9  # slices whose median is what a slice is made like
# A slice that would need more is damaged: making it alike would hide that, and cannot bring back lost grey levels.
MOST_GAIN = 1.25
MOST_SHIFT = 16.0


def slice_counts(mean: UInt8) -> Int64:
    """How many cells of each slice have each mean grey level: int64 (slices, 256), from uint8 z, y, x; 0 is empty."""
    counts = np.stack([np.bincount(slice_.ravel(), minlength=256) for slice_ in mean])
    counts[:, 0] = 0
    return counts.astype(np.int64)


def slice_table(counts: Int64) -> Float32:
    """Gain and offset of every slice, ``grey' = gain * grey + offset``.

    Args:
        counts: of ``slice_counts``, for all slices of a volume.

    Returns:
        float32 (slices, 2); 1 and 0 for a slice with nothing in it, and for one that is too far from the others.
    """
    table = np.tile(np.array([1, 0], np.float32), (len(counts), 1))
    filled = np.flatnonzero(counts.sum(axis=1))
    if not filled.size:
        return table
    low, median, high = (_quantile(counts[filled], share) for share in (0.25, 0.5, 0.75))
    spread = np.maximum(high - low, 1.0)
    centre, width = _running_median(median), _running_median(spread)
    gain = width / spread
    near = (np.maximum(gain, 1 / gain) <= MOST_GAIN) & (np.abs(centre - median) <= MOST_SHIFT)
    table[filled[near]] = np.stack([gain, centre - gain * median], axis=1)[near]
    return table


def normalised(grey: UInt8, rows: Float32) -> UInt8:
    """Grey levels with gain and offset of their slices; 0, which is empty, stays 0, and nothing else becomes it.

    Args:
        grey: uint8 z, y, x; pixels or means of cells.
        rows: float32 (slices, 2), of ``slice_table``.
    """
    levels = np.arange(256, dtype=np.float32)
    changed = np.clip(np.floor(rows[:, :1] * levels + rows[:, 1:] + np.float32(0.5)), 1, 255).astype(np.uint8)
    changed[:, 0] = 0
    return np.stack([table[slice_] for table, slice_ in zip(changed, grey, strict=True)])


def _quantile(counts: Int64, share: float) -> NDArray[np.float64]:
    """Of each row the level below which this share of it lies, interpolated inside the level."""
    total = share * counts.sum(axis=1)
    below = np.cumsum(counts, axis=1)
    level = (below < total[:, None]).sum(axis=1)
    row = np.arange(len(counts))
    here = counts[row, level]
    return np.asarray(level + 0.5 - (below[row, level] - total) / np.maximum(here, 1), np.float64)


def _running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median over ``WINDOW`` values around each; at the ends over those that are there."""
    half = WINDOW // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])
