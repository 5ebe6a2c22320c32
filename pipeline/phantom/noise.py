"""Random numbers and smooth fields that are functions of a place, not of the order in which they are asked.

Every number comes from a counter-based hash of absolute integer coordinates, and every field is made of single IEEE
operations per voxel (no sums whose order depends on an array's shape, no transcendental functions), so a voxel has the
same bits in whatever box it is computed.

Sources: the finaliser of splitmix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195); value noise on a lattice
with quadratic B-splines (any text on procedural texture).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, FloatVec3, Triple, Vec3, vec3

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]
Taps = tuple[NDArray[np.int64], list[Floats]]

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
# The standard deviation of the B-spline sum of uniform numbers in -1 .. 1, measured over all phases of a lattice.
_SPLINE_DEVIATION = 0.577 * 0.742**3


def mix(words: Words) -> Words:
    """splitmix64's finaliser: a bijection of uint64 that looks random."""
    words = words + np.uint64(_GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def hashed(seed: int, stream: int, *coordinates: Any) -> Words:
    """A uint64 for every place; ``coordinates`` are integer arrays that broadcast, of any sign."""
    words = mix(np.array([(seed + stream * _GOLDEN) % 2**64], np.uint64))
    for coordinate in coordinates:
        words = mix(words ^ np.asarray(coordinate, np.int64).astype(np.uint64))
    return words


def uniform(words: Words, field: int = 0) -> NDArray[np.float64]:
    """Numbers in [0, 1) derived from hashes; different ``field`` numbers give independent ones."""
    fresh = mix(words + np.uint64((field + 1) * _GOLDEN % 2**64))
    return (fresh >> np.uint64(11)).astype(np.float64) * 2.0**-53


def lattice_steps(spacing_nm: float, voxel_size_nm: FloatVec3) -> Vec3:
    """The lattice spacing in whole voxels, z, y, x, at least one."""
    return vec3(max(1, round(spacing_nm / size)) for size in voxel_size_nm)


def value_noise(seed: int, stream: int, box: Box, steps: Triple) -> Floats:
    """Smooth noise of mean 0 and standard deviation about 1 in ``box``; ``steps`` is the lattice in voxels."""
    taps = [_spline_taps(a, b, step) for a, b, step in zip(box.start, box.stop, steps, strict=True)]
    first = [int(indices[0]) for indices, _ in taps]
    z, y, x = (np.arange(low, int(indices[-1]) + 3) for low, (indices, _) in zip(first, taps, strict=True))
    words = hashed(seed, stream, z[:, None, None], y[None, :, None], x[None, None, :])
    values = ((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)) / np.float32(
        _SPLINE_DEVIATION
    )
    return _expanded(values, first, taps)


def interpolated(coarse: Floats, first: Sequence[int], box: Box, steps: Vec3) -> Floats:
    """Linear interpolation to every voxel of ``box`` of a field known at multiples of ``steps``.

    Args:
        coarse: z, y, x; its first value stands at lattice index ``first``; it must reach one point beyond the box.
    """
    taps = [_linear_taps(a, b, step) for a, b, step in zip(box.start, box.stop, steps, strict=True)]
    return _expanded(coarse, first, taps)


def white_noise(seed: int, stream: int, box: Box) -> Floats:
    """Independent noise at every voxel: triangular, mean 0, standard deviation 1."""
    z, y, x = (
        (hashed(seed, stream + axis, np.arange(a, b)) >> np.uint64(32)).astype(np.uint32)
        for axis, (a, b) in enumerate(zip(box.start, box.stop, strict=True))
    )
    words = z[:, None, None] + y[None, :, None] ^ x[None, None, :]
    words ^= words >> np.uint32(16)  # a 32-bit finaliser: half the memory traffic of splitmix64
    words *= np.uint32(0x7FEB352D)
    words ^= words >> np.uint32(15)
    words *= np.uint32(0x846CA68B)
    words ^= words >> np.uint32(16)
    low = (words & np.uint32(0xFFFF)).astype(np.float32)
    low += words >> np.uint32(16)
    low -= np.float32(65535.0)
    low *= np.float32(6**0.5 / 65536.0)
    return low


def _spline_taps(start: int, stop: int, step: int) -> Taps:
    nearest, rest = np.divmod(2 * np.arange(start, stop, dtype=np.int64) + step, 2 * step)
    f = (rest - step) / (2.0 * step)
    weights = [0.5 * (0.5 - f) ** 2, 0.75 - f**2, 0.5 * (0.5 + f) ** 2]
    return nearest - 1, [w.astype(np.float32) for w in weights]


def _linear_taps(start: int, stop: int, step: int) -> Taps:
    below, rest = np.divmod(np.arange(start, stop, dtype=np.int64), step)
    f = rest / float(step)
    return below, [(1.0 - f).astype(np.float32), f.astype(np.float32)]


def _expanded(values: Floats, first: Sequence[int], taps: Sequence[Taps]) -> Floats:
    for axis in (2, 1):  # z last: its planes are contiguous, and the largest pass runs in the cache
        indices, weights = taps[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        total = np.take(values, indices - first[axis], axis) * weights[0].reshape(shape)
        for tap, weight in enumerate(weights[1:], 1):
            total += np.take(values, indices - first[axis] + tap, axis) * weight.reshape(shape)
        values = total
    indices, weights = taps[0]
    out = np.empty((len(indices), *values.shape[1:]), np.float32)
    scratch = np.empty(values.shape[1:], np.float32)
    for plane, index in enumerate(indices - first[0]):
        np.multiply(values[index], weights[0][plane], out=out[plane])
        for tap, weight in enumerate(weights[1:], 1):
            out[plane] += np.multiply(values[index + tap], weight[plane], out=scratch)
    return out
