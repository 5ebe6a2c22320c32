"""Whatever the block grid, pieces are joined across bad slices as they would be in the whole volume."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.bridge import (
    LEAST_OF_LARGER,
    SectionSums,
    bridged,
    bridges,
    joined,
    overlaps,
    sections,
    summed,
)

EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)
Ids = NDArray[np.uint64]
Pairs = set[tuple[int, int]]

shapes = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 6))
gaps = st.integers(0, 4)
shares = st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.9, 1.0])


@st.composite
def labelled(draw: st.DrawFn) -> Ids:
    """Few ids in columns that mostly go on, broken by slices of background."""
    shape, seed = draw(shapes), draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    ids = random.integers(0, draw(st.sampled_from([3, 5, 9])), shape, dtype=np.uint64)
    ids[random.random(shape[0]) < draw(st.sampled_from([0.0, 0.3, 0.6]))] = 0
    ids[random.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = 0
    return ids


def by_definition(ids: Ids, gap: int, share: float) -> Pairs:
    """Column by column, voxel by voxel."""
    facing: dict[tuple[int, int, int, int], int] = {}
    for z, slices in product(range(len(ids)), range(1, gap + 1)):
        if z + slices + 1 >= len(ids):
            continue
        for y, x in np.ndindex(*ids.shape[1:]):
            lower, upper = int(ids[z, y, x]), int(ids[z + slices + 1, y, x])
            if lower and upper and lower != upper and not ids[z + 1 : z + slices + 1, y, x].any():
                key = (lower, upper, z, slices)
                facing[key] = facing.get(key, 0) + 1
    found = set()
    for (lower, upper, z, slices), columns in facing.items():
        small, large = sorted((int((ids[z] == lower).sum()), int((ids[z + slices + 1] == upper).sum())))
        if columns >= share * small - 1e-9 and columns >= LEAST_OF_LARGER * large:
            found.add((min(lower, upper), max(lower, upper)))
    return found


def by_blocks(ids: Ids, block: Vec3, gap: int, share: float) -> Pairs:
    """Each block with what it sees above it; overlaps and sections added up in an order of no meaning."""
    found, held = [], []
    for each in reversed(list(BlockGrid(ids.shape, block))):
        (z, y, x), low, depth = each.core.slices(), each.core.start[0], each.core.shape[0]
        seen = ids[z.start : z.stop + gap + 1, y, x]
        found.append(overlaps(seen, depth, gap, low))
        held.append(sections(seen[:depth], low))
    everything = summed(np.concatenate(found))
    areas = SectionSums(everything)
    for rows in held:
        areas.add(rows)
    return as_set(bridges(everything, areas, share))


def as_set(pairs: NDArray[np.int64]) -> Pairs:
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    return {(a, b) for a, b in pairs.tolist()}


@EXAMPLES
@given(labelled(), gaps, shares)
def test_pairs_are_those_of_the_definition(ids: Ids, gap: int, share: float) -> None:
    assert as_set(bridged(ids, gap, share)) == by_definition(ids, gap, share)


@EXAMPLES
@given(labelled(), shapes, gaps, shares)
def test_blocks_of_any_shape_find_the_pairs_of_the_whole_volume(ids: Ids, block: Vec3, gap: int, share: float) -> None:
    assert by_blocks(ids, block, gap, share) == as_set(bridged(ids, gap, share))


@EXAMPLES
@given(labelled(), gaps, st.permutations(range(9)))
def test_other_numbers_for_the_instances_join_the_same_voxels(ids: Ids, gap: int, numbers: list[int]) -> None:
    renamed = np.array([0, *(n + 1 for n in numbers)], np.uint64)[ids.astype(np.intp)]
    first = joined(9, bridged(ids, gap, 0.5))[ids.astype(np.intp)]
    second = joined(9, bridged(renamed, gap, 0.5))[renamed.astype(np.intp)]
    together = np.unique(np.stack((first.reshape(-1), second.reshape(-1))), axis=1)
    assert together.shape[1] == len(np.unique(first)) == len(np.unique(second))


@EXAMPLES
@given(labelled(), gaps)
def test_a_volume_upside_down_is_joined_alike(ids: Ids, gap: int) -> None:
    assert as_set(bridged(ids[::-1], gap, 0.5)) == as_set(bridged(ids, gap, 0.5))


@pytest.mark.parametrize("block", [(1, 9, 9), (2, 3, 9), (9, 1, 1), (4, 4, 4)])
def test_a_section_that_many_blocks_share_counts_whole(block: Vec3) -> None:
    ids = np.zeros((5, 9, 9), np.uint64)
    ids[:2, :, :] = 1
    ids[3:, :4, :] = 2  # 36 voxels, all facing
    ids[3:, 4:, :5] = 3  # 25, all facing
    assert by_blocks(ids, block, 1, 1.0) == {(1, 2), (1, 3)}
    ids[1, 0, 0] = 0  # one column of the 36 less
    assert by_blocks(ids, block, 1, 1.0) == {(1, 3)}
    assert by_blocks(ids, block, 1, 35 / 36) == {(1, 2), (1, 3)}
