"""Badly exposed regions brought back to the grey levels of the slices around them; what the microscope saw there stays.

A cell's gain and offset are those that give the damaged cells in the window around it the level and the spread that the
same cells have in the sound slices below and above. What differs no more than sound slices do is left: a blurred region
keeps its contrast, and nothing is gained by changing it. All sums are of integers and look a fixed number of cells far:
the result has the same bits for every block shape. Axes z, y, x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Bool, Float32, UInt8
from pipeline.denoise.ops.gaps import gaps
from pipeline.denoise.ops.measures import windowed
from pipeline.denoise.ops.slices import MOST_GAIN, MOST_SHIFT
from pipeline.geometry import Box, Vec3, vec3

_HALF = 16  # cells on each side of one that decide its gain: 1.3 um
_FEWEST = 64  # damaged cells in a window; of less the spread is not known
_LOST = 4.0  # a gain beyond which what is left of the contrast is noise


def relevel_halo(max_gap: int) -> Vec3:
    """Cells (z, y, x) around a box that decide its gains and offsets."""
    return vec3((max_gap, _HALF, _HALF))


def relevelling(mean: UInt8, damaged: Bool, chosen: Bool, max_gap: int, first: int, count: int) -> Float32:
    """Gain and offset of each cell of some slices, ``grey' = gain * grey + offset``.

    Args:
        mean: of ``cells.inspected``; grown in plane by ``relevel_halo``, in z by as much or as far as
            the volume reaches; 0 is empty.
        damaged: of the same cells; what nothing is compared with.
        chosen: damaged cells that are to be changed.
        max_gap: the longest run of damaged slices.
        first, count: the slices that are asked for.

    Returns:
        float32 (count, y, x, 2) of the cells without the halo in plane; 1 and 0 where nothing is to be changed, or
        where too few cells are known or too little contrast is left.

    Source: our own; the limits are those of ``pipeline.denoise.ops.slices``, which evens out what is less.
    """
    table = np.zeros((count, *(n - 2 * _HALF for n in mean.shape[1:]), 2), np.float32)
    table[..., 0] = 1
    empty = mean == 0
    for z in np.flatnonzero(chosen[first : first + count].any(axis=(1, 2))):
        place = first + int(z)
        found = gaps(mean, damaged, empty, place, max_gap)
        known = chosen[place] & found.restorable & ~empty[place]
        table[z] = _inner(_fitted(mean[place], found.before, found.after, known))
    return table


def relevelled(grey: UInt8, table: Float32, side: int, box: Box, first: tuple[int, int]) -> UInt8:
    """Grey levels with the gain and offset of their cells, between the middles of cells blended linearly.

    Args:
        grey: of ``box``; 0, which is empty, stays 0, and nothing else becomes it.
        table: float32 (z, y, x, 2), of the same slices and at least of the cells next to those of the box.
        side: pixels of a cell.
        box: in voxels.
        first: the cell (y, x) with which the table begins.
    """
    result = grey.copy()
    for z in np.flatnonzero((table != np.array([1, 0], np.float32)).any(axis=(1, 2, 3))):
        gain, offset = np.moveaxis(_fine(table[z], side, box, first), -1, 0)
        changed = np.clip(np.floor(gain * grey[z] + offset + np.float32(0.5)), 1, 255)
        result[z] = np.where(grey[z] == 0, 0, changed)
    return result


def _fitted(own: UInt8, before: UInt8, after: UInt8, known: Bool) -> Float32:
    """(y, x, 2) of one slice."""
    counted = np.maximum(_sum(known), 1)
    (level, spread), *others = (_moments(values, known, counted) for values in (own, before, after))
    wanted_level, wanted_spread = (sum(pair) / 2 for pair in zip(*others, strict=True))
    gain, shift = np.sqrt(wanted_spread / spread), wanted_level - level
    apart = (np.maximum(gain, 1 / gain) > MOST_GAIN) | (np.abs(shift) > MOST_SHIFT)
    changed = known & apart & (_sum(known) >= _FEWEST) & (gain <= _LOST)
    offset = shift + (1 - gain) * level
    return np.stack([np.where(changed, gain, 1), np.where(changed, offset, 0)], axis=-1).astype(np.float32)


def _moments(values: UInt8, known: Bool, counted: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of the known values in the window around each cell; a variance of at least 1."""
    wide = np.where(known, values, 0).astype(np.int32)
    mean = _sum(wide) / counted
    return mean, np.maximum(_sum(wide * wide) / counted - mean * mean, 1.0)


def _sum(values: NDArray[np.int32] | Bool) -> NDArray[np.int32]:
    sums: NDArray[np.int32] = windowed(values.astype(np.int32)[None], _HALF)[0]
    return sums


def _inner(array: Float32) -> Float32:
    return array[_HALF:-_HALF, _HALF:-_HALF]


def _fine(table: Float32, side: int, box: Box, first: tuple[int, int]) -> Float32:
    """(y, x, 2) of the pixels of a box; beyond its border the table goes on."""
    for axis in range(2):
        places = (np.arange(box.start[axis + 1], box.stop[axis + 1]) + 0.5) / side - 0.5
        below = np.floor(places).astype(np.intp)
        share = (places - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        last = table.shape[axis] - 1
        low, high = (np.take(table, np.clip(below + k - first[axis], 0, last), axis=axis) for k in (0, 1))
        table = low + share * (high - low)
    return table
