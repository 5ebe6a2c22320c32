"""Integer rescaling around the network: block mean before it, linear interpolation of the probabilities after it.

Both are anchored at the volume's first voxel and use plain numpy float32 arithmetic, voxel by voxel in one fixed order,
so that a voxel's value never depends on the box it was computed in.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Float32
from pipeline.geometry import Box, Triple, Vec3, vec3


def coarse_extent(extent: Triple, scale: Triple) -> Vec3:
    """The extent in coarse voxels; a partial last one counts."""
    return vec3(extent).ceil_div(scale)


def coarse_box(box: Box, scale: Triple) -> Box:
    """The coarse voxels that hold ``box``."""
    return Box(box.start // scale, box.stop.ceil_div(scale))


def fine_box(box: Box, scale: Triple, extent: Triple) -> Box:
    """The voxels of a coarse box, clipped to the volume's extent."""
    return Box(box.start * scale, box.stop * scale).clipped(Box.of_shape(extent))


def block_mean(array: npt.NDArray[Any], scale: Triple) -> Float32:
    """Mean of blocks of ``scale`` voxels, float32; a ragged end repeats its last voxel. Integer input sums exactly."""
    if scale == (1, 1, 1):
        return array.astype(np.float32)
    shape = vec3(array.shape)
    short = shape.ceil_div(scale) * scale - shape
    if any(short):
        array = np.pad(array, [(0, after) for after in short], mode="edge")
    total: npt.NDArray[Any] = array.astype(np.float64 if array.dtype.kind == "f" else np.uint32)
    for axis, step in enumerate(scale):
        every = (slice(None),) * axis
        total = sum(
            (total[(*every, slice(k, None, step))] for k in range(1, step)), total[(*every, slice(0, None, step))]
        )
    return np.asarray(total / float(prod(scale)), np.float32)


def interpolate(coarse: Float32, held: Box, fine: Box, scale: Triple) -> Float32:
    """Linear interpolation (voxel centres, border repeated) of coarse values at the voxels of a fine box.

    Args:
        coarse: float32 values of the coarse box ``held``; it must hold one coarse voxel more than ``fine`` needs on
            each side, except at the volume's border, where the last value is repeated.
        held: coarse box.
        fine: box in fine voxels to be filled.
        scale: fine voxels a coarse one, z y x.
    """
    for axis in range(3):
        coarse = _interpolate_axis(coarse, axis, held.start[axis], fine.start[axis], fine.stop[axis], scale[axis])
    return coarse


def _interpolate_axis(values: Float32, axis: int, held: int, start: int, stop: int, scale: int) -> Float32:
    positions = np.arange(start, stop)
    if scale == 1:
        return np.take(values, positions - held, axis)
    # Twice the coarse coordinate times scale is an integer: fractions are the same wherever they are computed.
    doubled = 2 * positions + 1 - scale
    low = doubled // (2 * scale)
    fraction = ((doubled - low * 2 * scale) / (2 * scale)).astype(np.float32)
    shape = [-1 if a == axis else 1 for a in range(3)]
    last = values.shape[axis] - 1
    below = np.take(values, np.clip(low - held, 0, last), axis)
    above = np.take(values, np.clip(low + 1 - held, 0, last), axis)
    return below + (above - below) * fraction.reshape(shape)
