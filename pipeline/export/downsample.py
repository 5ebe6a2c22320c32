"""Coarser mips: exact means of images and majority labels, and the choice of which axes to halve. Axes z, y, x.

Sources: the mip convention of igneous and Neuroglancer (halve the finest axes until voxels are near isotropic, then all
three); the majority of a cell by comparing its voxels pairwise, after W. Silversmith's "countless" (2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import sqrt

import numpy as np

from pipeline.arrays import Array, Kind
from pipeline.geometry import ORIGIN, FloatVec3, Triple, Vec3, float_vec3, vec3

MOST_MIPS = 8


def mip_factors(voxel_size_nm: FloatVec3, extent: Triple, chunk: Triple, most: int = MOST_MIPS) -> list[Vec3]:
    """The factor of each level against the one before, until the volume fits into one chunk; all z, y, x.

    An axis is halved when its voxels are at most sqrt(2) times the finest axis'; an axis of one voxel never is.
    """
    factors: list[Vec3] = []
    extent = vec3(extent)
    while len(factors) < most and not extent.all_at_most(chunk):
        finest = min(s for s, e in zip(voxel_size_nm, extent, strict=True) if e > 1)
        factor = vec3(2 if e > 1 and s <= sqrt(2) * finest else 1 for s, e in zip(voxel_size_nm, extent, strict=True))
        factors.append(factor)
        extent = extent.ceil_div(factor)
        voxel_size_nm = float_vec3(s * f for s, f in zip(voxel_size_nm, factor, strict=True))
    return factors


def downsample(array: Array, factor: Triple, kind: Kind, lead: Triple = ORIGIN) -> Array:
    """One voxel per cell of ``factor`` voxels; cells at the border hold fewer and count only those.

    Args:
        array: z, y, x of any real dtype of up to 32 bits (image), or any dtype (segmentation).
        factor: voxels per cell, z, y, x.
        kind: ``image`` is the mean (integers exactly, halves rounded up), ``segmentation`` the most frequent label (of
            equally frequent ones the first in z, y, x order).
        lead: voxels missing at the front of the first cell, ``0 <= lead < factor``.

    Returns:
        The same dtype, shape ``ceil((lead + shape) / factor)``.

    Raises:
        ValueError: an image of 64-bit integers, whose sums would overflow.
    """
    if factor == (1, 1, 1):
        return array
    return _mean(array, factor, lead) if kind == "image" else _majority(array, factor, lead)


def _mean(array: Array, factor: Triple, lead: Triple) -> Array:
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        raise ValueError(f"no exact mean of {array.dtype} images")
    padded = np.pad(array, _padding(array, factor, lead))
    count: Array = _voxels_per_cell(array.shape, factor, lead)
    total: Array = np.zeros(count.shape, np.float64 if array.dtype.kind == "f" else np.int64)
    for cell in _cells(factor):
        total += padded[cell]
    mean = total / count if array.dtype.kind == "f" else (2 * total + count) // (2 * count)
    return np.asarray(mean, dtype=array.dtype)


def _majority(array: Array, factor: Triple, lead: Triple) -> Array:
    """Votes: the first holder of a value in a cell sees all later ones, so its count is the full one."""
    padded = np.pad(array, _padding(array, factor, lead), mode="edge")
    samples = [padded[cell] for cell in _cells(factor)]
    if not array.any():
        return np.zeros(samples[0].shape, array.dtype)
    exists = [_present(array.shape, factor, lead, cell) for cell in product(*map(range, factor))]
    best, most = samples[0].copy(), np.zeros(samples[0].shape, np.int32)
    for first, sample in enumerate(samples):
        votes = np.zeros(best.shape, np.int32)
        for later in range(first, len(samples)):
            votes += (sample == samples[later]) & exists[later]
        better = (votes > most) & exists[first]
        np.copyto(best, sample, where=better)
        np.copyto(most, votes, where=better)
    return best


def _cells(factor: Triple) -> Iterator[tuple[slice, slice, slice]]:
    """The strided view of each place in a cell, in z, y, x order."""
    for z, y, x in product(*map(range, factor)):
        yield slice(z, None, factor[0]), slice(y, None, factor[1]), slice(x, None, factor[2])


def _padding(array: Array, factor: Triple, lead: Triple) -> list[tuple[int, int]]:
    return [(first, -(first + n) % f) for first, n, f in zip(lead, array.shape, factor, strict=True)]


def _present(shape: tuple[int, ...], factor: Triple, lead: Triple, place: tuple[int, ...]) -> Array:
    """Which cells hold a real voxel at this place of theirs; broadcast from three axes."""
    along = []
    for axis, (n, f, first, at) in enumerate(zip(shape, factor, lead, place, strict=True)):
        index = np.arange(-(-(first + n) // f)) * f + at
        along.append(((index >= first) & (index < first + n)).reshape([-1 if a == axis else 1 for a in range(3)]))
    return np.asarray(along[0] & along[1] & along[2])


def _voxels_per_cell(shape: tuple[int, ...], factor: Triple, lead: Triple) -> Array:
    along = []
    for axis, (n, f, first) in enumerate(zip(shape, factor, lead, strict=True)):
        start = np.arange(-(-(first + n) // f)) * f
        count = np.minimum(start + f, first + n) - np.maximum(start, first)
        along.append(count.reshape([-1 if a == axis else 1 for a in range(3)]))
    return np.asarray(along[0] * along[1] * along[2])
