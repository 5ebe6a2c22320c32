"""Slices made alike: the jumps of brightness and contrast from section to section, evened out.

Every slice has one gain and one offset, computed once for the whole volume. A tile of 32 x 32 cells knows its own level
and spread; what most tiles of a slice say against the same tiles of the slices around it is the slice's: damage of
regions moves few tiles, and what changes slowly, the tissue itself, stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Bool, Float32, Int64, UInt8

TILE = 32  # cells
WINDOW = 9  # slices whose median is what a slice is made like
# A slice that would need more is damaged: making it alike would hide that, and cannot bring back lost grey levels.
MOST_GAIN = 1.25
MOST_SHIFT = 16.0
_HOLDS = 0.1  # of the cells with tissue that the middle one of all slices has
_FILLED = 0.25  # share of a tile that must hold tissue
# Shares of the sorted cells whose means are the dark side, the level and the bright side of a tile.
_DARK, _MIDDLE, _BRIGHT = (0.1, 0.4), (0.4, 0.6), (0.6, 0.9)


def tile_levels(mean: UInt8) -> Float32:
    """Level and spread of the tiles of each slice, in grey levels.

    Args:
        mean: of ``inspected``, uint8 (z, y, x), from a whole tile on; 0 is empty.

    Returns:
        float32 (z, tiles y, tiles x, 2); NaN for tiles that are mostly empty.
    """
    z, y, x = mean.shape
    padded = np.pad(mean, ((0, 0), (0, -y % TILE), (0, -x % TILE)))
    rows, columns = (n // TILE for n in padded.shape[1:])
    tiles = padded.reshape(z, rows, TILE, columns, TILE).swapaxes(2, 3).reshape(z, rows, columns, TILE**2)
    ordered = np.sort(tiles, axis=-1)
    filled = np.count_nonzero(ordered, axis=-1)
    sums = np.pad(np.cumsum(ordered, axis=-1, dtype=np.int32), ((0, 0), (0, 0), (0, 0), (1, 0)))
    dark, middle, bright = (_between(sums, filled, *shares) for shares in (_DARK, _MIDDLE, _BRIGHT))
    levels = np.stack([middle, np.maximum(bright - dark, 1.0)], axis=-1)
    levels[filled < _FILLED * TILE**2] = np.nan
    return levels.astype(np.float32)


def slice_table(levels: Float32) -> Float32:
    """Gain and offset of every slice, ``grey' = gain * grey + offset``.

    Args:
        levels: of ``tile_levels``, for all slices and tiles of a volume.

    Returns:
        float32 (slices, 2); 1 and 0 for a slice with nothing in it, and for one that is too far from the others.
    """
    tiles = levels.reshape(len(levels), -1, 2)
    table = np.tile(np.array([1, 0], np.float32), (len(levels), 1))
    for z, own in enumerate(tiles):
        there = ~np.isnan(own[:, 0])
        if not there.any():
            continue
        level, spread = own[there].astype(np.float64).T
        around = tiles[max(0, z - WINDOW // 2) : z + WINDOW // 2 + 1, there].astype(np.float64)
        usual_level, usual_spread = np.nanmedian(around, axis=0).T
        shift, gain = np.median(usual_level - level), np.median(usual_spread / spread)
        if abs(shift) <= MOST_SHIFT and max(gain, 1 / gain) <= MOST_GAIN:
            table[z] = gain, shift + (1 - gain) * np.median(level)
    return table


def hold_tissue(cells: Int64) -> Bool:
    """Which slices are no missing ones, from how many cells with tissue each of them has: int64 (slices,)."""
    there = cells > 0
    return there & (cells >= _HOLDS * np.median(cells[there])) if there.any() else there


def normalised(grey: UInt8, rows: Float32) -> UInt8:
    """Grey levels with gain and offset of their slices; 0, which is empty, stays 0, and nothing else becomes it.

    Args:
        grey: uint8 z, y, x; pixels or means of cells.
        rows: float32 (slices, 2 or more), of ``slice_table``.
    """
    levels = np.arange(256, dtype=np.float32)
    changed = np.clip(np.floor(rows[:, :1] * levels + rows[:, 1:2] + np.float32(0.5)), 1, 255).astype(np.uint8)
    changed[:, 0] = 0
    return np.stack([table[slice_] for table, slice_ in zip(changed, grey, strict=True)])


def _between(sums: NDArray[np.int32], filled: NDArray[np.intp], low: float, high: float) -> NDArray[np.float64]:
    """Mean of the sorted cells between two shares of the filled ones, which come last; at least one cell."""
    empty = sums.shape[-1] - 1 - filled
    first = empty + (low * filled).astype(np.intp)
    last = np.maximum(empty + (high * filled).astype(np.intp), np.minimum(first + 1, empty + filled))
    total = np.take_along_axis(sums, last[..., None], -1) - np.take_along_axis(sums, first[..., None], -1)
    return np.asarray(total[..., 0] / np.maximum(last - first, 1), np.float64)
