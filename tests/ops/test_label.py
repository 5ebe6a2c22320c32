from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.image.quantise import to_uint8
from pipeline.instances.ops.label import Connectivity, label, seeds


def test_every_level_survives_the_trip_to_float_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    assert np.array_equal(to_uint8(levels / np.float32(255)), levels)
    assert np.array_equal(to_uint8(levels / 255.0), levels)


def test_quantising_rounds_to_the_nearest_level_at_both_ends() -> None:
    probability = np.array([0.0, 0.49 / 255, 0.51 / 255, 254.49 / 255, 254.51 / 255, 1.0])
    assert to_uint8(probability).tolist() == [0, 0, 1, 254, 255, 255]


def test_a_uint8_map_is_not_copied() -> None:
    levels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert to_uint8(levels) is levels


@pytest.mark.parametrize("value", [-0.001, 1.001, np.nan, np.inf])
def test_a_probability_outside_zero_to_one_is_refused(value: float) -> None:
    probability = np.full((2, 2, 2), 0.5, np.float32)
    probability[1, 0, 1] = value
    with pytest.raises(BadInput, match=r"must lie in 0\.\.1 without NaN"):
        to_uint8(probability)


def test_a_map_of_another_dtype_is_refused() -> None:
    with pytest.raises(BadInput, match="dtype int64: must be uint8"):
        to_uint8(np.zeros((1, 1, 1), np.int64))


def test_both_thresholds_are_strict() -> None:
    semantic = np.array([[[229, 230, 230, 230]]], np.uint8)
    boundary = np.array([[[0, 203, 204, 0]]], np.uint8)
    assert seeds(semantic, boundary, 229, 204).tolist() == [[[False, True, False, True]]]


def test_seeds_of_a_float_map_equal_those_of_its_quantised_map() -> None:
    rng = np.random.default_rng(1)
    semantic, boundary = rng.random((2, 6, 7, 8), dtype=np.float32)
    assert np.array_equal(seeds(semantic, boundary, 99, 150), seeds(to_uint8(semantic), to_uint8(boundary), 99, 150))


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_decides_over_edges_and_corners(connectivity: Connectivity, count: int) -> None:
    diagonal = np.zeros((3, 3, 3), np.bool_)
    diagonal[0, 0, 0] = diagonal[0, 1, 1] = diagonal[1, 2, 2] = True  # an edge, then a corner
    assert label(diagonal, connectivity)[1] == count


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_labels_are_uint32_in_c_order_numbered_by_their_first_voxel(connectivity: Connectivity) -> None:
    volume = np.random.default_rng(2).random((9, 14, 11)) < 0.2
    labels, n = label(np.asfortranarray(volume), connectivity)
    values, first = np.unique(labels, return_index=True)
    assert labels.dtype == np.uint32
    assert labels.flags.c_contiguous
    assert values.tolist() == list(range(n + 1))
    assert np.all(np.diff(first[1:]) > 0)
    assert np.array_equal(labels != 0, volume)


def test_bool_and_uint8_seeds_of_any_value_give_the_same_labels() -> None:
    volume = np.random.default_rng(3).integers(0, 3, (8, 8, 8), dtype=np.uint8)
    assert np.array_equal(label(volume, 6)[0], label(volume != 0, 6)[0])


def test_an_empty_block_has_no_label() -> None:
    labels, n = label(np.zeros((2, 3, 4), np.bool_), 6)
    assert n == 0
    assert labels.dtype == np.uint32
    assert labels.shape == (2, 3, 4)
    assert not labels.any()


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("shape", [(1, 3, 1), (1, 9, 8), (3, 3, 3), (7, 1, 1), (1, 65, 65), (5, 6, 7)])
def test_as_many_single_voxels_as_a_block_can_hold_are_all_labelled(
    shape: tuple[int, int, int], connectivity: Connectivity
) -> None:
    volume = np.zeros(shape, np.bool_)
    volume[::2, ::2, ::2] = True
    labels, n = label(volume, connectivity)
    assert n == volume.sum()
    assert labels[volume].tolist() == list(range(1, n + 1))
    assert labels.shape == shape
    assert labels.flags.c_contiguous
