from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.instances.ops.bridge import (
    OVERLAP,
    SECTION,
    SectionSums,
    bridged,
    bridges,
    joined,
    overlaps,
    sections,
    summed,
)

DATA = os.environ.get("TERAMITO_DATA", "")
Ids = NDArray[np.uint64]


def stack(*slices: dict[int, tuple[int, int]]) -> Ids:
    """A volume one row high: in each slice the ids with the columns (from, to) in which they lie."""
    ids = np.zeros((len(slices), 1, 100), np.uint64)
    for z, spans in enumerate(slices):
        for value, (start, stop) in spans.items():
            ids[z, 0, start:stop] = value
    return ids


def test_two_pieces_around_one_bad_slice_are_joined() -> None:
    assert bridged(stack({1: (0, 20)}, {}, {2: (0, 20)}), 1, 0.5).tolist() == [[1, 2]]


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_gap_of_n_slices_is_bridged_and_one_of_n_and_one_is_not(slices: int) -> None:
    ids = stack({1: (0, 20)}, *[{}] * slices, {2: (0, 20)})
    assert len(bridged(ids, slices, 0.5)) == 1
    assert len(bridged(ids, slices - 1, 0.5)) == 0
    assert len(bridged(ids, slices + 3, 0.5)) == 1


def test_an_overlap_of_exactly_the_share_is_enough_and_one_voxel_less_is_not() -> None:
    below = {1: (0, 30)}
    assert len(bridged(stack(below, {}, {2: (20, 40)}), 1, 0.5)) == 1  # 10 of the smaller 20
    assert len(bridged(stack(below, {}, {2: (21, 41)}), 1, 0.5)) == 0
    assert len(bridged(stack(below, {}, {2: (27, 67)}), 1, 0.1)) == 1  # 3 of 30; 0.1 * 30 is above 3 in doubles
    assert len(bridged(stack(below, {}, {2: (28, 68)}), 1, 0.1)) == 0


def test_the_share_is_that_of_the_smaller_section_whether_it_lies_below_or_above() -> None:
    small, large = (0, 20), (0, 100)
    assert len(bridged(stack({1: small}, {}, {2: large}), 1, 1.0)) == 1
    assert len(bridged(stack({1: large}, {}, {2: small}), 1, 1.0)) == 1


def test_sections_count_whole_also_where_they_are_in_several_parts_or_go_on_beyond_the_gap() -> None:
    ids = stack({1: (0, 30)}, {1: (10, 30)}, {1: (10, 30), 2: (0, 10)})
    assert len(bridged(ids, 1, 1.0)) == 1  # all 10 of the smaller, as 1 goes on beside the gap
    ids[2, 0, 60:71] = 2  # another part of it: now 21 voxels
    assert len(bridged(ids, 1, 0.5)) == 0


def test_something_else_between_two_pieces_keeps_them_apart_where_it_lies() -> None:
    one = stack({1: (0, 20)}, {3: (0, 20)}, {2: (0, 20)})
    assert len(bridged(one, 1, 0.5)) == 0
    half = stack({1: (0, 20)}, {3: (0, 11)}, {2: (0, 20)})
    assert len(bridged(half, 1, 0.5)) == 0
    assert bridged(half, 1, 0.45).tolist() == [[1, 2]]
    of_three = stack({1: (0, 20)}, {}, {3: (0, 20)}, {}, {2: (0, 20)})
    assert bridged(of_three, 3, 0.5).tolist() == [[1, 3], [2, 3]]


def test_an_instance_that_faces_itself_across_a_gap_is_joined_with_nothing() -> None:
    bent = stack({1: (0, 30)}, {1: (0, 2)}, {1: (0, 30)})
    assert len(overlaps(bent, 3, 1)) == 0
    assert len(bridged(bent, 1, 0.5)) == 0


def test_the_ends_of_a_bent_instance_may_both_be_joined() -> None:
    ids = stack({1: (0, 20), 2: (40, 60)}, {}, {3: (0, 20)})
    ids[2, 0, 40:60] = 3
    assert bridged(ids, 1, 0.5).tolist() == [[1, 3], [2, 3]]


def test_pieces_side_by_side_and_pieces_that_touch_are_left_alone() -> None:
    assert len(bridged(stack({1: (0, 20), 2: (21, 40)}, {}), 1, 0.5)) == 0
    assert len(bridged(stack({1: (0, 20)}, {2: (0, 20)}), 2, 0.5)) == 0


def test_a_speck_does_not_chain_two_instances() -> None:
    large, speck = (0, 66), (10, 12)
    assert len(bridged(stack({1: large}, {}, {3: speck}, {}, {2: large}), 1, 0.5)) == 0
    assert len(bridged(stack({1: (0, 64)}, {}, {3: speck}), 1, 0.5)) == 1  # 2 of 64: the least there is


def test_a_chain_of_three_pieces_becomes_one_instance_under_its_smallest_id() -> None:
    ids = stack({7: (0, 20)}, {}, {3: (0, 20)}, {}, {9: (0, 20)})
    pairs = bridged(ids, 1, 0.5)
    assert pairs.tolist() == [[3, 7], [3, 9]]
    assert joined(10, pairs).tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 8, 3, 10]


def test_nothing_to_join_leaves_every_instance_its_id() -> None:
    assert joined(3, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2, 3]
    assert joined(0, np.zeros((0, 2), np.int64)).tolist() == [0]


def test_joins_through_shared_members_form_one_group_in_any_order() -> None:
    pairs = np.array([[5, 6], [2, 6], [9, 8], [6, 5]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert joined(9, pairs[order]).tolist() == [0, 1, 2, 3, 4, 2, 2, 7, 8, 8]


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 4, 4), (2, 4, 4), (5, 0, 4), (5, 4, 4)])
def test_volumes_without_an_instance_or_too_thin_for_a_gap_join_nothing(shape: tuple[int, int, int]) -> None:
    assert bridged(np.zeros(shape, np.uint64), 3, 0.5).shape == (0, 2)
    assert bridged(np.ones(shape, np.uint64), 3, 0.5).shape == (0, 2)


def test_a_gap_of_no_slices_joins_nothing() -> None:
    assert bridged(stack({1: (0, 20)}, {}, {2: (0, 20)}), 0, 0.0).shape == (0, 2)


def test_rows_carry_global_slices_and_what_lies_above_the_depth_is_only_looked_at() -> None:
    ids = stack({1: (0, 20)}, {}, {2: (5, 15)}, {}, {4: (0, 20)})
    found = overlaps(ids, 2, 1, 100)
    assert found.tolist() == [(1, 2, 100, 1, 10)]
    assert sections(ids[:3], 100).tolist() == [(1, 100, 20), (2, 102, 10)]


def test_equal_keys_are_added_up_and_come_in_rising_order() -> None:
    rows = np.array([(5, 2, 7, 1, 3), (1, 9, 0, 2, 1), (5, 2, 7, 1, 4), (1, 9, 0, 1, 1)], OVERLAP)
    assert summed(rows).tolist() == [(1, 9, 0, 1, 1), (1, 9, 0, 2, 1), (5, 2, 7, 1, 7)]
    assert len(summed(np.zeros(0, SECTION))) == 0


def test_ids_above_2_to_the_53_are_not_mixed_up() -> None:
    ids = stack({1: (0, 20), 2: (50, 70)}, {}, {3: (0, 20)})
    ids[ids > 0] += np.uint64(2**60)
    assert bridged(ids, 1, 0.5).tolist() == [[2**60 + 1, 2**60 + 3]]


def test_only_sections_beside_an_overlap_are_held_whatever_else_is_added() -> None:
    found = np.array([(1, 2, 10, 1, 6)], OVERLAP)
    areas = SectionSums(found)
    areas.add(np.array([(1, 10, 5), (1, 11, 99), (2, 12, 7), (3, 10, 99), (2, 10, 99), (1, 9, 99)], SECTION))
    areas.add(np.array([(1, 10, 6)], SECTION))
    areas.add(np.array([(9, 400, 6)], SECTION))
    assert areas.of(found["lower"], found["z"]).tolist() == [11]
    assert areas.of(found["upper"], found["z"] + 2).tolist() == [7]
    assert len(bridges(found, areas, 6 / 7)) == 1
    assert len(bridges(found, areas, 0.86)) == 0


def test_sections_that_were_not_added_are_noticed() -> None:
    found = np.array([(1, 2, 10, 1, 6)], OVERLAP)
    areas = SectionSums(found)
    areas.add(np.array([(1, 10, 6), (2, 12, 5)], SECTION))
    with pytest.raises(ValueError, match="sections are missing"):
        bridges(found, areas, 0.5)


@pytest.fixture(scope="module")
def real() -> Callable[[str], NDArray[np.integer]]:
    """A label volume of the real data."""
    import tifffile

    return lambda name: np.asarray(tifffile.imread(Path(DATA) / name))


needs_data = pytest.mark.skipif(not DATA, reason="TERAMITO_DATA does not name the folder of real EM volumes")


@pytest.mark.data
@needs_data
def test_the_two_pieces_that_lucchis_labels_lose_in_two_blank_slices_are_joined(
    real: Callable[[str], NDArray[np.integer]],
) -> None:
    import cc3d

    mask = real("lucchi/train_mitochondria.tif")[78:154, 130:320] > 0
    ids = cc3d.connected_components(mask, connectivity=26).astype(np.uint64)
    assert len(bridged(ids, 1, 0.5)) == 0
    pairs = bridged(ids, 2, 0.5)
    lasts = [78 + int(np.flatnonzero((ids == lower).any(axis=(1, 2))).max()) for lower, _ in pairs]
    assert sorted(lasts) == [82, 148]


@pytest.mark.data
@needs_data
def test_instances_of_the_fly_broken_by_three_blank_slices_are_joined_and_no_others(
    real: Callable[[str], NDArray[np.integer]],
) -> None:
    """Slices 1, 7 and 18 of the instances are blank by mistake; the class labels of the same tissue are whole."""
    import cc3d

    ids = real("drosophila_vnc/stack1_instances.tif").astype(np.uint64)
    whole = cc3d.connected_components(real("drosophila_vnc/stack1_classes.tif") == 191, connectivity=6)
    values, first = np.unique(np.where(whole > 0, ids, 0), return_index=True)
    true_object = dict(zip(values.tolist(), whole.reshape(-1)[first].tolist(), strict=True))
    pairs = bridged(ids, 1, 0.5).tolist()
    assert len(pairs) == 49
    assert all(true_object[a] == true_object[b] for a, b in pairs)
    groups = len(np.unique(joined(101, np.array(pairs)))) - 1
    assert groups == 52  # of 101 pieces; the class labels hold 48 objects there
