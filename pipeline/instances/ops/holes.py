"""Holes inside instances, filled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Vec3
from pipeline.instances.ops.fragments import LAST_INT64, Runs, reduced, runs
from pipeline.instances.ops.label import label


def fill_holes(labels: NDArray[Any], largest: Vec3) -> NDArray[Any]:
    """Give each hole the label of the instance around it.

    A hole is a 6-connected component of background that touches, over faces, exactly one label and not the array's rim,
    and whose extent along each axis is at most ``largest``.

    In a block with ``largest`` voxels around its core, a component with a voxel in the core either reaches the rim,
    and then is longer than ``largest`` (or reaches the border of the volume, where the rim is that), or is seen whole
    with all that it touches. So the core gets exactly the labels that the whole volume would have there.

    Args:
        labels: ids, z, y, x, an unsigned dtype; 0 is background.
        largest: the largest extent of a hole along z, y, x; where one is 0 no hole is filled.

    Returns:
        Ids of the same shape and dtype; the array itself where nothing is filled.
    """
    if min(largest) < 1 or not labels.any():
        return labels
    components, n = label(labels == 0, 6)
    found = runs(components)
    small = _small_inside(found, n, labels.shape, largest)
    inside = small[found.label.astype(np.intp) - 1]
    if not inside.any():
        return labels
    voxels, component = _voxels(Runs(*(values[inside] for values in found)))
    holes = _around(np.ascontiguousarray(labels), voxels, component, n)[component]
    filled = labels.copy(order="C")
    filled.reshape(-1)[voxels] = holes
    return filled


def _small_inside(found: Runs, n: int, shape: tuple[int, ...], largest: Vec3) -> NDArray[np.bool_]:
    """For each component, whether its extent is at most ``largest`` and it does not touch the rim of the array."""
    component = found.label.astype(np.intp) - 1
    line, x = np.divmod(found.start, shape[2])
    z, y = np.divmod(line, shape[1])
    small = np.ones(n, np.bool_)
    for axis, (low, last) in enumerate(((z, z), (y, y), (x, x + found.length - 1))):
        start = reduced(np.minimum, low, component, n, LAST_INT64)
        end = reduced(np.maximum, last, component, n, 0)
        small &= (start > 0) & (end < shape[axis] - 1) & (end - start < largest[axis])
    return small


def _voxels(found: Runs) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The flat index and the component (from 0) of each voxel of the runs."""
    before = np.cumsum(found.length) - found.length
    along = np.arange(int(found.length.sum())) - np.repeat(before, found.length)
    return np.repeat(found.start, found.length) + along, np.repeat(found.label.astype(np.intp) - 1, found.length)


def _around(labels: NDArray[Any], voxels: NDArray[np.int64], component: NDArray[np.intp], n: int) -> NDArray[Any]:
    """The label that alone touches each component, 0 where there are several."""
    flat, strides = labels.reshape(-1), (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    least, greatest = np.full(n, np.iinfo(labels.dtype).max, labels.dtype), np.zeros(n, labels.dtype)
    for step in (sign * stride for stride in strides for sign in (-1, 1)):
        touched = flat[voxels + step]
        at = np.flatnonzero(touched)
        np.minimum.at(least, component[at], touched[at])
        np.maximum.at(greatest, component[at], touched[at])
    return np.where(least == greatest, least, 0).astype(labels.dtype)
