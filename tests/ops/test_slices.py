"""Slices made alike: jumps go, the tissue and its slow changes stay, damage does not mislead."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.denoise.ops.slices import MOST_SHIFT, TILE, normalised, slice_table, tile_levels

UInt8 = NDArray[np.uint8]


def _tissue(slices: int = 20, seed: int = 1) -> UInt8:
    return (
        np.tile(np.random.default_rng(seed).normal(130, 25, (1, 96, 96)), (slices, 1, 1)).clip(1, 255).astype(np.uint8)
    )


def _table(mean: UInt8) -> NDArray[np.float32]:
    return slice_table(tile_levels(mean))


def test_a_jump_of_brightness_and_contrast_goes() -> None:
    tissue = _tissue()
    jumped = tissue.copy()
    jumped[7] = np.clip(1.1 * tissue[7].astype(float) - 20, 1, 255)
    even = normalised(jumped, _table(jumped))
    assert np.abs(even[7].astype(int) - tissue[7]).mean() < 1.5
    np.testing.assert_array_equal(np.delete(even, 7, 0), np.delete(tissue, 7, 0))


def test_slow_changes_of_the_tissue_stay() -> None:
    slow = np.stack([np.clip(slice_.astype(int) + z, 1, 255) for z, slice_ in enumerate(_tissue())]).astype(np.uint8)
    table = _table(slow)
    assert np.abs(table[4:-4] - (1, 0)).max() < 0.1


def test_damage_of_a_region_does_not_change_its_slice() -> None:
    damaged = _tissue()
    damaged[9, :30] = 20
    damaged[12, 20:60, 20:60] = 0
    np.testing.assert_allclose(_table(damaged)[[9, 12]], [(1, 0)] * 2, atol=0.02)


def test_a_slice_that_is_too_far_from_the_others_is_left_to_be_found() -> None:
    far = _tissue()
    far[5] = np.clip(far[5].astype(int) + int(MOST_SHIFT) + 4, 1, 255)
    far[11] = (far[11] * 0.5 + 60).astype(np.uint8)
    np.testing.assert_array_equal(_table(far)[[5, 11]], [(1, 0)] * 2)


def test_empty_stays_empty_and_nothing_else_becomes_it() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    even = normalised(grey, np.array([(0.5, -40)], np.float32))
    assert even[0, 0, 0] == 0
    assert even.ravel()[1:].min() == 1
    np.testing.assert_array_equal(normalised(grey, np.array([(1, 0)], np.float32)), grey)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 1, 70), (5, 40, 40)])
def test_empty_volumes_and_slices_are_left_as_they_are(shape: tuple[int, int, int]) -> None:
    empty = np.zeros(shape, np.uint8)
    np.testing.assert_array_equal(_table(empty), [(1, 0)] * shape[0])
    empty[-1] = 9
    np.testing.assert_array_equal(_table(empty), [(1, 0)] * shape[0])


def test_levels_do_not_depend_on_the_box_they_are_computed_in() -> None:
    mean = np.random.default_rng(2).integers(0, 256, (3, 2 * TILE + 5, 3 * TILE)).astype(np.uint8)
    whole, part = tile_levels(mean), tile_levels(mean[1:, TILE:, TILE : 2 * TILE])
    np.testing.assert_array_equal(whole[1:, 1:, 1:2], part)
