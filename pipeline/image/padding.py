"""Where a volume is padding and not tissue: windows in which every voxel is zero."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.geometry import vec3

# Zeros over a window of this many voxels (z y x) are padding, not dark tissue: nothing is predicted there.
EMPTY_WINDOW = vec3((1, 9, 9))


def empty_voxels(raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a voxel lies in an in-plane window of 9x9 zeros: padding outside the tissue, not a dark voxel.

    What lies outside ``raw`` counts as not empty; the caller reads a window more than it keeps on every side.
    """
    zero = np.asarray(raw == 0)
    if not EMPTY_WINDOW.all_at_most(vec3(raw.shape)) or np.count_nonzero(zero) < prod(EMPTY_WINDOW):
        return np.zeros(raw.shape, bool)
    for axis, length in enumerate(EMPTY_WINDOW):
        zero = _windowed(np.logical_and, zero, axis, length)
    for axis, length in enumerate(EMPTY_WINDOW):
        zero = _windowed(np.logical_or, _padded(zero, axis, length - 1), axis, length)
    return zero


def _windowed(operation: np.ufunc, mask: npt.NDArray[np.bool_], axis: int, length: int) -> npt.NDArray[np.bool_]:
    """The operation over every window of ``length`` along an axis, in log2(length) passes; shorter by length - 1."""
    width = 1
    while width < length:
        step = min(width, length - width)
        before, after = _parts(mask, axis, step)
        mask, width = operation(before, after), width + step
    return mask


def _parts(mask: npt.NDArray[np.bool_], axis: int, step: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    every = (slice(None),) * axis
    return mask[(*every, slice(None, max(mask.shape[axis] - step, 0)))], mask[(*every, slice(step, None))]


def _padded(mask: npt.NDArray[np.bool_], axis: int, width: int) -> npt.NDArray[np.bool_]:
    return np.pad(mask, [(width, width) if a == axis else (0, 0) for a in range(3)])
