from __future__ import annotations

from itertools import product
from math import pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.stitch import contact, forward_offsets, opposite, rim
from pipeline.instances.ops.surface import DIRECTIONS, pairs_across, pairs_within, surface_nm2

Counts = NDArray[np.uint64]


def by_definition(ids: NDArray[np.uint32], n: int) -> Counts:
    counts = np.zeros((n, 13), np.uint64)
    at = set(map(tuple, np.argwhere(ids).tolist()))
    for (z, y, x), (number, (dz, dy, dx)) in product(at, enumerate(DIRECTIONS)):
        there = (z + dz, y + dy, x + dx)
        if there in at and ids[there] == ids[z, y, x]:
            counts[ids[z, y, x] - 1, number] += np.uint64(1)
    return counts


def blockwise(ids: NDArray[np.uint32], block: Vec3, n: int) -> Counts:
    """From each block alone, and from the rims of two."""
    grid = BlockGrid(ids.shape, block)
    counts = np.zeros((n, 13), np.uint64)
    rims = [rim(ids[each.core.slices()]) for each in grid]
    for each in grid:
        counts += pairs_within(ids[each.core.slices()], np.arange(1, n + 1), n)
        for z, y, x in forward_offsets(26):
            index = (each.index[0] + z, each.index[1] + y, each.index[2] + x)
            if grid.has(index):
                other = rims[grid.number_of(index)]
                ours, theirs = contact(rims[each.number], (z, y, x)), contact(other, opposite((z, y, x)))
                counts += pairs_across(ours, theirs, (z, y, x), n)
    return counts


def area(mask: NDArray[np.bool_], size: FloatVec3 = (1.0, 1.0, 1.0)) -> float:
    pairs = pairs_within(mask.astype(np.uint32), np.ones(1, np.int64), 1)
    return float(surface_nm2(np.array([mask.sum()], np.uint64), pairs, size)[0])


def centred(length: float, size: FloatVec3) -> tuple[NDArray[np.float64], ...]:
    """Coordinates in nm of the voxels of a box that holds a body of this length around its middle."""
    axes = [(np.arange(n := int(length / s) + 5) - n / 2 + 0.4) * s for s in size]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z, y, x


def test_pairs_within_a_block_are_those_of_the_definition() -> None:
    for seed, density in enumerate((0.1, 0.4, 0.8, 1.0)):
        rng = np.random.default_rng(seed)
        ids = (rng.integers(1, 4, (4, 5, 6)) * (rng.random((4, 5, 6)) < density)).astype(np.uint32)
        assert np.array_equal(pairs_within(ids, np.arange(1, 4), 3), by_definition(ids, 3))


def test_labels_of_one_object_are_counted_together_and_dropped_labels_not_at_all() -> None:
    labels = np.random.default_rng(3).integers(0, 5, (4, 5, 6)).astype(np.uint32)
    joined = np.array([0, 1, 2, 1, 0], np.uint32)[labels]
    assert np.array_equal(pairs_within(labels, np.array([1, 2, 1, 0]), 2), by_definition(joined, 2))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.sampled_from([0.2, 0.6, 1.0]),
    st.integers(0, 99),
)
def test_blocks_and_their_rims_give_the_pairs_of_the_whole(shape: Vec3, block: Vec3, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = (rng.integers(1, 4, shape) * (rng.random(shape) < density)).astype(np.uint32)
    assert np.array_equal(blockwise(ids, block, 3), pairs_within(ids, np.arange(1, 4), 3))


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (3.75, 1.0, 1.0), (1.0, 2.0, 3.0)])
def test_the_area_of_a_sphere_is_found_within_two_percent(size: FloatVec3) -> None:
    radius = 8.0 * max(size)
    z, y, x = centred(2 * radius, size)
    assert area(z**2 + y**2 + x**2 <= radius**2, size) == pytest.approx(4 * pi * radius**2, rel=0.02)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 2, 3)])
def test_the_area_of_a_cylinder_is_found_in_any_orientation(axis: Vec3) -> None:
    radius, length = 7.0, 44.0
    # Flat ends across an axis are found at 0.93 of their area, and are a seventh of this surface.
    along, across = _along(centred(length + 4, (1.0, 1.0, 1.0)), axis)
    expected = 2 * pi * radius * length + 2 * pi * radius**2
    assert area((across <= radius) & (abs(along) <= length / 2)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 2, 3)])
def test_the_area_of_a_box_is_found_within_ten_percent(axis: Vec3) -> None:
    n = np.array(axis) / np.linalg.norm(axis)
    u = np.cross(n, (0.3, 1.0, 0.0) if axis != (1, 0, 0) else (0, 1, 0))
    frame = np.stack((n, u / np.linalg.norm(u), np.cross(n, u / np.linalg.norm(u))))
    z, y, x = centred(44, (1.0, 1.0, 1.0))
    sides = np.array((30.0, 20.0, 16.0))
    place = np.einsum("ij,jzyx->izyx", frame, np.stack((z, y, x)))
    inside = (abs(place) <= sides[:, None, None, None] / 2).all(axis=0)
    assert area(inside) == pytest.approx(2 * (30 * 20 + 20 * 16 + 16 * 30), rel=0.1)


def test_the_area_of_a_rod_in_anisotropic_voxels_is_found_within_eight_percent() -> None:
    size = (30.0, 8.0, 8.0)
    for axis in ((1, 0, 0), (0, 1, 0), (1, 1, 1)):
        along, across = _along(centred(1200.0, size), axis)
        capsule = np.hypot(np.maximum(abs(along) - 400, 0), across) <= 150
        assert area(capsule, size) == pytest.approx(2 * pi * 150 * 800 + 4 * pi * 150**2, rel=0.08), axis


def test_one_voxel_counts_once_in_every_direction() -> None:
    assert not pairs_within(np.ones((1, 1, 1), np.uint32), np.ones(1, np.int64), 1).any()
    assert 3.0 < area(np.ones((1, 1, 1), np.bool_)) < 6.0


def _along(place: tuple[NDArray[np.float64], ...], axis: Vec3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance along an axis through the middle, and from it."""
    n = np.array(axis) / np.linalg.norm(axis)
    along = sum(p * c for p, c in zip(place, n, strict=True))
    return along, np.sqrt(np.maximum(sum(p**2 for p in place) - along**2, 0))
