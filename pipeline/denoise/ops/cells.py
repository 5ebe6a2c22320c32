"""What the slices of a raw volume look like, small: two numbers for each cell of c x c pixels of one slice.

A cell is about 40 nm wide, so that a precipitate is some cells and a volume is 1/32 of its raw bytes. Everything that
finds damage and evens out slices works on cells alone. All sums are of integers: the result has the same bits whatever
box a cell is computed in.
"""

from __future__ import annotations

from math import log2

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import UInt8
from pipeline.geometry import FloatVec3, Vec3, vec3

_CELL_NM = 40.0
SMALLEST_CELL, LARGEST_CELL = 2, 32  # a single pixel has no texture
TEXTURE_SCALE = 24.0  # steps for each doubling of the texture: 255 holds all of an 8-bit image, a step is 3 %


def cell_shape(voxel_size_nm: FloatVec3) -> Vec3:
    """The voxels of a cell (z, y, x): one slice, and the power of two (2..32) whose width is nearest to 40 nm."""
    in_plane = (voxel_size_nm[1] * voxel_size_nm[2]) ** 0.5
    side = 2 ** round(log2(_CELL_NM / in_plane))
    side = min(max(side, SMALLEST_CELL), LARGEST_CELL)
    return vec3((1, side, side))


def inspected(grey: UInt8, cell: Vec3) -> tuple[UInt8, UInt8]:
    """The mean grey level and the texture of each cell.

    Cells at the far borders hold fewer pixels and count only those.

    Args:
        grey: z, y, x, from a whole cell on; 0 is empty.
        cell: of ``cell_shape``.

    Returns:
        ``mean``: of the pixels that are not empty, 1..255; 0 where more than half of the cell is empty.
        ``texture``: the mean of |a - b - c + d| over the squares of 2 x 2 pixels in the cell, which sees noise and
        edges of a pixel's width and no slope, as ``24 log2(1 + 4 texture)``, 255 at most; 0 where all pixels are equal.
    """
    # Slice by slice: the numbers in between take fourteen times the memory of the pixels, and stay in the cache.
    found = [_inspected(grey[z : z + 1], cell[1]) for z in range(len(grey))]
    mean, texture = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return mean, texture


def _inspected(grey: UInt8, side: int) -> tuple[UInt8, UInt8]:
    _, y, x = grey.shape
    padded = np.pad(grey, ((0, 0), (0, -y % side), (0, -x % side)))
    pixels = _pixels((y, x), side)
    filled = _summed((padded != 0).astype(np.uint16), side)
    total = _summed(padded.astype(np.uint32), side)
    mean = (2 * total + filled) // (2 * np.maximum(filled, 1))
    mean[2 * filled < pixels] = 0
    return mean.astype(np.uint8), _texture(padded, (y, x), side)


def _texture(padded: UInt8, extent: tuple[int, int], side: int) -> UInt8:
    a = padded.astype(np.int16)
    across = a[:, :, :-1] - a[:, :, 1:]
    squares = np.zeros(padded.shape, np.uint32)
    squares[:, :-1, :-1] = np.abs(across[:, :-1] - across[:, 1:])
    squares[:, side - 1 :: side] = 0
    squares[:, :, side - 1 :: side] = 0
    y, x = extent
    squares[:, y - 1 :] = 0
    squares[:, :, x - 1 :] = 0
    counted = _pixels(extent, side, less=1)
    mean = _summed(squares, side) / np.maximum(counted, 1)
    coded = np.minimum(np.rint(TEXTURE_SCALE * np.log2(1.0 + 4.0 * mean)), 255.0)
    coded[:, counted == 0] = 1  # a cell of one pixel's width has no squares
    return np.asarray(coded, np.uint8)


def _pixels(extent: tuple[int, int], side: int, less: int = 0) -> NDArray[np.int64]:
    """Pixels of each cell inside the extent; with ``less`` of the squares instead."""
    along = (np.minimum(side, n - np.arange(0, n, side)) - less for n in extent)
    y, x = along
    return np.outer(y, x)


def _summed(values: NDArray[np.unsignedinteger], side: int) -> NDArray[np.int64]:
    while side > 1:
        values = values[:, 0::2] + values[:, 1::2]
        values = values[:, :, 0::2] + values[:, :, 1::2]
        side //= 2
    return values.astype(np.int64)
