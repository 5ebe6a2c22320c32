"""Numbers beyond those that any test volume reaches: labels, offsets, voxel indices, repeats, very long axes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.geometry import Box, Vec3
from pipeline.instances.canonical import counted, write_canonical
from pipeline.instances.ops.fragments import FRAGMENT, fragment_table
from pipeline.instances.ops.label import Connectivity, label
from pipeline.instances.ops.merge import merge
from pipeline.instances.ops.relabel import relabel
from pipeline.instances.ops.stitch import global_pairs, rim, touching_pairs
from pipeline.instances.ops.supermerge import Nodes, union

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
HUGE: Vec3 = (10**6, 10**6, 10**6)


@pytest.mark.parametrize(("connectivity", "shape"), [(6, (52, 53, 51)), (18, (65, 65, 65)), (26, (83, 82, 81))])
def test_a_block_may_hold_more_than_65535_labels(connectivity: Connectivity, shape: Vec3) -> None:
    z, y, x = np.indices(shape, np.uint8)
    densest = {
        6: (z + y + x) % 2 == 0,
        18: ((z % 2 == 0) & (y % 2 == 0) & (x % 2 == 0)) | ((z % 2 == 1) & (y % 2 == 1) & (x % 2 == 1)),
        26: (z % 2 == 0) & (y % 2 == 0) & (x % 2 == 0),
    }[connectivity]
    labels, n = label(densest, connectivity)
    assert n == int(densest.sum()) > 65535
    assert np.array_equal(labels[densest], np.arange(1, n + 1))
    rows = fragment_table(labels, n, Box.of_shape(shape), shape)
    assert (rows["voxels"] == 1).all()
    assert np.array_equal(rows["first"], np.flatnonzero(densest))
    ids = relabel(labels, np.arange(n, dtype=np.uint64) + np.uint64(2**63))
    assert int(ids.max()) == 2**63 + n - 1


@pytest.mark.parametrize("axis", range(3))
def test_an_axis_may_be_very_long_and_the_others_one_voxel(axis: int) -> None:
    line = np.random.default_rng(axis).random(300_001) < 0.6
    shape = tuple(line.size if a == axis else 1 for a in range(3))
    volume = line.reshape(shape)
    for connectivity in (6, 18, 26):
        labels, n = label(volume, connectivity)  # type: ignore[arg-type]
        expected, found = ndimage.label(line)
        assert (n, found) == (found, n)
        assert np.array_equal(labels.reshape(-1), expected)
        rows = fragment_table(labels, n, Box.of_shape(shape), shape, np.full(shape, 255, np.uint8))  # type: ignore[arg-type]
        assert np.array_equal(rows["voxels"], np.bincount(expected)[1:])
        assert np.array_equal(rows["probability_sum"], 255 * np.bincount(expected)[1:])


def test_the_probabilities_of_a_run_of_17_million_voxels_are_summed_exactly() -> None:
    length = 2**32 // 255 + 2
    labels = np.ones((1, 1, length), np.uint32)
    (row,) = fragment_table(labels, 1, Box.of_shape(labels.shape), (1, 1, length), np.full(labels.shape, 255, np.uint8))
    assert int(row["voxels"]) == length
    assert int(row["probability_sum"]) == 255 * length


@given(st.tuples(*[st.integers(0, 10**6 - 4)] * 3), st.integers(0, 2**31))
@EXAMPLES
def test_rows_are_exact_anywhere_in_a_volume_of_10_to_the_18_voxels(at: Vec3, seed: int) -> None:
    volume = np.random.default_rng(seed).random((3, 4, 4)) < 0.4
    labels, n = label(volume, 6)
    core = Box(at, (at[0] + 3, at[1] + 4, at[2] + 4))
    for number, row in enumerate(fragment_table(labels, n, core, HUGE), 1):
        voxels = [tuple(int(a + b) for a, b in zip(at, each, strict=True)) for each in np.argwhere(labels == number)]
        assert int(row["first"]) == min((z * 10**6 + y) * 10**6 + x for z, y, x in voxels)
        assert row["coordinate_sum"].tolist() == [sum(axis) for axis in zip(*voxels, strict=True)]
        assert row["start"].tolist() == [min(axis) for axis in zip(*voxels, strict=True)]
        assert row["stop"].tolist() == [max(axis) + 1 for axis in zip(*voxels, strict=True)]
        z, y, x = zip(*voxels, strict=True)
        products = [(a, b) for a, b in ((z, z), (y, y), (x, x), (z, y), (z, x), (y, x))]
        moments = [sum(a * b for a, b in zip(*pair, strict=True)) % 2**64 for pair in products]
        assert row["second_moment"].tolist() == moments


neighbours = st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=30, unique=True).map(
    lambda found: sorted({value + step for value in found for step in (0, 1)})
)


@EXAMPLES
@given(neighbours, st.integers(0, 2**31), st.sampled_from([1, 3, 2**18]))
def test_first_voxels_that_differ_in_the_18th_digit_are_ordered_exactly(
    firsts: list[int], seed: int, partition: int
) -> None:
    # As doubles, neighbours beyond 2^53 are equal.
    order = np.random.default_rng(seed).permutation(len(firsts))
    rows = np.zeros(len(firsts), FRAGMENT)
    rows["first"], rows["voxels"] = np.array(firsts, np.uint64)[order], 1
    nothing = np.zeros((0, 2), np.int64)
    assert np.array_equal(merge(len(rows), nothing, rows), order + 1)
    found = union(Nodes(rows["voxels"], rows["first"], nothing, nothing, np.zeros(0, np.int64)), 0)
    assert found.finished.tolist() == firsts
    with tempfile.TemporaryDirectory() as folder, patch("pipeline.instances.canonical.PARTITION", partition):
        table, cuts = Path(folder) / "ids.npy", np.array_split(rows["first"], 3)
        assert write_canonical(table, counted(iter(cuts)), len(rows), 10**18 + 1) == len(rows)
        assert np.array_equal(np.load(table), order + 1)


@EXAMPLES
@given(st.sampled_from([0, 2**31 - 3, 2**32 - 3, 2**53 - 3, 2**62]), st.integers(0, 2**31))
def test_super_blocks_join_fragments_numbered_beyond_any_32_or_53_bits(offset: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    spans = np.array([[0, 4], [9, 12], [12, 20]])
    pairs = random.integers(0, 20, (12, 2))
    voxels, first = random.integers(1, 9, 15).astype(np.uint64), random.permutation(15).astype(np.uint64)
    near = union(Nodes.of_fragments(voxels, first, spans, pairs), 4)
    far = union(Nodes.of_fragments(voxels, first, spans + offset, pairs + offset), 4)
    assert np.array_equal(near.group, far.group)
    assert np.array_equal(near.crossing + offset, far.crossing)
    assert np.array_equal(near.finished, far.finished)


def test_touching_labels_of_31_bits_keep_their_numbers_among_fragments_beyond_53_bits() -> None:
    own, other = (np.zeros((2, 2, 2), np.uint32) for _ in range(2))
    own[1, 0, 0], other[0, 0, 0] = 2**31, 2**32 - 1
    pairs = touching_pairs(rim(own), rim(other), (1, 0, 0), 6)
    assert global_pairs(pairs, 2**53, 2**60).tolist() == [[2**53 + 2**31 - 1, 2**60 + 2**32 - 2]]


@EXAMPLES
@given(st.integers(2, 12), st.integers(0, 20), st.sampled_from([1, 2, 300]), st.integers(0, 2**31))
def test_repeated_turned_and_looped_pairs_join_as_each_pair_once(count: int, k: int, times: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, count, (k, 2))
    rows = np.zeros(count, FRAGMENT)
    rows["first"], rows["voxels"] = random.permutation(count), 1
    repeated = np.concatenate([np.tile(pairs, (times, 1)), pairs[:, ::-1], np.tile(np.arange(count), (2, 1)).T])
    expected = merge(count, np.unique(np.sort(pairs, axis=1), axis=0), rows)
    assert np.array_equal(merge(count, random.permutation(repeated), rows), expected)
    # 65,536 repeats of one pair must not add up to none, in whatever integers they are counted.
    if k:
        many = np.concatenate([np.tile(pairs[:1], (2**16, 1)), pairs[1:]])
        assert np.array_equal(merge(count, many, rows), expected)
