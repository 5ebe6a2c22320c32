from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.instances.ops.fragments import FRAGMENT, Rows
from pipeline.instances.ops.merge import MOST_FRAGMENTS, canonical_ids, components, merge


def rows_of(first: list[int], voxels: list[int]) -> Rows:
    rows = np.zeros(len(first), FRAGMENT)
    rows["first"], rows["voxels"] = first, voxels
    return rows


def pairs_of(*pairs: tuple[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def test_instances_are_numbered_by_the_first_voxel_of_any_fragment() -> None:
    rows = rows_of([50, 20, 90, 5, 70], [1] * 5)
    assert merge(5, pairs_of((0, 3), (2, 4)), rows).tolist() == [1, 2, 3, 1, 3]


def test_without_pairs_every_fragment_is_an_instance() -> None:
    assert merge(3, pairs_of(), rows_of([9, 4, 6], [1] * 3)).tolist() == [3, 1, 2]


def test_small_instances_are_dropped_whole_and_the_ids_stay_dense() -> None:
    rows = rows_of([0, 10, 20, 30], [3, 4, 1, 9])
    assert merge(4, pairs_of((1, 2)), rows, minimum_voxels=5).tolist() == [0, 1, 1, 2]
    assert merge(4, pairs_of((1, 2)), rows, minimum_voxels=6).tolist() == [0, 0, 0, 1]


def test_a_fragment_that_would_be_dropped_alone_stays_with_its_instance() -> None:
    assert merge(2, pairs_of((0, 1)), rows_of([0, 8], [1, 7]), minimum_voxels=8).tolist() == [1, 1]


def test_the_table_does_not_depend_on_how_fragments_are_numbered() -> None:
    rng = np.random.default_rng(5)
    n = 200
    rows, pairs = rows_of(rng.permutation(n).tolist(), [1] * n), rng.integers(0, n, (120, 2))
    order = rng.permutation(n)  # the new number of each fragment
    renumbered = np.empty_like(rows)
    renumbered[order] = rows
    table = merge(n, pairs, rows, 2)
    assert np.array_equal(merge(n, order[pairs][::-1, ::-1], renumbered, 2)[order], table)


def test_many_repeats_of_one_pair_still_join() -> None:
    assert merge(2, np.tile(pairs_of((0, 1)), (65_536, 1)), rows_of([0, 1], [1, 1])).tolist() == [1, 1]


def test_no_fragments_give_an_empty_table() -> None:
    table = merge(0, pairs_of(), rows_of([], []), 10)
    assert table.dtype == np.uint64
    assert len(table) == 0


def test_more_fragments_than_int32_are_refused() -> None:
    with pytest.raises(BadInput, match="at most 2147483647"):
        components(MOST_FRAGMENTS + 1, pairs_of())


def test_canonical_ids_skip_groups_that_are_not_kept() -> None:
    first = np.array([7, 3, 5], np.uint64)
    table = canonical_ids(np.array([0, 1, 2]), first, np.array([True, False, True]))
    assert table.dtype == np.uint64
    assert table.tolist() == [2, 0, 1]
