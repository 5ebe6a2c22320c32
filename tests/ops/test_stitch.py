from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.geometry import Vec3
from pipeline.instances.ops.label import Connectivity
from pipeline.instances.ops.stitch import AXES_CROSSED, Rim, forward_offsets, global_pairs, rim, touching_pairs

CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)


def by_definition(
    own: NDArray[np.uint32], other: NDArray[np.uint32], offset: Vec3, connectivity: Connectivity
) -> list[list[int]]:
    """Visit every voxel of ``own`` and every neighbour of it that lies in ``other``."""
    shift = [
        size if step > 0 else -size_other if step < 0 else 0
        for step, size, size_other in zip(offset, own.shape, other.shape, strict=True)
    ]
    pairs = set()
    for at in np.argwhere(own):
        for step in product((-1, 0, 1), repeat=3):
            there = at + step - shift
            if sum(map(abs, step)) > AXES_CROSSED[connectivity] or (there < 0).any() or (there >= other.shape).any():
                continue
            if other[tuple(there)]:
                pairs.add((int(own[tuple(at)]), int(other[tuple(there)])))
    return [list(pair) for pair in sorted(pairs)]


def blocks_at(offset: Vec3, shape: Vec3, ragged: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    rng = np.random.default_rng(sum(shape) + ragged)
    other = [ragged if step else size for step, size in zip(offset, shape, strict=True)]
    return (
        rng.integers(0, 4, shape, dtype=np.uint32) * rng.integers(0, 2, shape, dtype=np.uint32),
        rng.integers(0, 5, other, dtype=np.uint32) * rng.integers(0, 2, other, dtype=np.uint32),
    )


def test_half_of_the_neighbours_are_3_9_or_13() -> None:
    assert [len(forward_offsets(connectivity)) for connectivity in CONNECTIVITIES] == [3, 9, 13]


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_forward_offsets_and_their_opposites_are_all_neighbours_once(connectivity: Connectivity) -> None:
    forward = forward_offsets(connectivity)
    both = forward + [(-z, -y, -x) for z, y, x in forward]
    expected = [o for o in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, o)) <= AXES_CROSSED[connectivity]]
    assert sorted(both) == sorted(expected)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 3), (1, 1, 1), (2, 1, 5)])
@pytest.mark.parametrize("ragged", [1, 3])
def test_pairs_equal_a_visit_of_every_neighbour(connectivity: Connectivity, shape: Vec3, ragged: int) -> None:
    for offset in forward_offsets(connectivity):
        own, other = blocks_at(offset, shape, ragged)
        pairs = touching_pairs(rim(own), rim(other), offset, connectivity)
        assert pairs.dtype == np.uint32
        assert pairs.tolist() == by_definition(own, other, offset, connectivity), offset


def test_pairs_seen_from_the_other_block_are_the_same() -> None:
    for z, y, x in forward_offsets(26):
        own, other = (rim(labels) for labels in blocks_at((z, y, x), (4, 5, 6), 3))
        forward = touching_pairs(own, other, (z, y, x), 26)
        backward = touching_pairs(other, own, (-z, -y, -x), 26)
        assert sorted(forward.tolist()) == sorted(backward[:, ::-1].tolist())


def test_labels_of_32_bits_do_not_mix() -> None:
    top = np.uint32(2**32 - 1)
    pairs = touching_pairs(rim(np.full((2, 2, 2), top)), rim(np.full((2, 2, 2), top - 1)), (1, 0, 0), 26)
    assert pairs.tolist() == [[2**32 - 1, 2**32 - 2]]


def test_empty_faces_have_no_pairs() -> None:
    full, inner = np.ones((4, 4, 4), np.uint32), np.zeros((4, 4, 4), np.uint32)
    inner[1:3, 1:3, 1:3] = 1
    assert touching_pairs(rim(full), rim(inner), (0, 1, 0), 26).shape == (0, 2)


def test_a_rim_is_a_copy_and_survives_storage() -> None:
    labels = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    kept = rim(labels)
    arrays = kept.to_arrays()
    labels[:] = 0
    again = Rim.from_arrays(arrays)
    assert sorted(arrays) == ["x_high", "x_low", "y_high", "y_low", "z_high", "z_low"]
    assert arrays["z_low"].shape == (1, 3, 4)
    assert arrays["x_high"].ravel().tolist() == [3, 7, 11, 15, 19, 23]
    assert all(np.array_equal(again.to_arrays()[name], plane) for name, plane in arrays.items())


def test_global_numbers_are_zero_based_and_64_bit() -> None:
    pairs = global_pairs(np.array([[1, 3]], np.uint32), 10, 2**33)
    assert pairs.dtype == np.int64
    assert pairs.tolist() == [[10, 2**33 + 2]]
