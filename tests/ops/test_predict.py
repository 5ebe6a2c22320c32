"""The predict op: one lattice fixed to the volume, so blocks never show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.image.lattice import Lattice, blending_weights
from pipeline.image.padding import empty_voxels
from pipeline.image.quantise import quantised
from pipeline.image.resample import block_mean, interpolate
from pipeline.predict.op import PredictOp


class Blur:
    """A stand-in network whose output at a voxel depends on its whole patch, as a real one's does."""

    def predict(self, patches):
        context = patches.mean(axis=(2, 3, 4), keepdims=True)
        smooth = (patches + np.roll(patches, 1, 3) + np.roll(patches, 1, 4)) / 3
        semantic = 1 / (1 + np.exp(-(smooth - context) * 8))
        return (
            np.concatenate([semantic, 1 - semantic * patches.max(axis=(2, 3, 4), keepdims=True)], 1)
            .clip(0, 1)
            .astype(np.float32)
        )


def normalise(raw):
    return (raw / np.float32(255)).astype(np.float32)


def volume(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def by_blocks(op, raw, block):
    maps = np.zeros((2, *raw.shape), np.uint8)
    for piece in BlockGrid(raw.shape, block):
        read = op.read_box(piece.core)
        semantic, boundary, _ = op(raw[read.slices()], read, piece.core, normalise, Blur())
        maps[(0, *piece.core.slices())], maps[(1, *piece.core.slices())] = semantic, boundary
    return maps


@pytest.mark.parametrize("weights", ["bump", "gaussian", "crop"])
@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("block", [(5, 17, 32), (13, 40, 20), (40, 90, 90)])
def test_blockwise_prediction_equals_the_whole_volume_bit_for_bit(weights, scale, block):
    raw = volume((25, 71, 66))
    raw[3:9, 20:50, 10:40] = 0
    op = PredictOp(raw.shape, scale, (6, 16, 16), (2, 4, 6), weights)
    np.testing.assert_array_equal(by_blocks(op, raw, block), by_blocks(op, raw, raw.shape))


def test_a_patch_batch_of_any_size_gives_the_same_map():
    raw = volume((12, 50, 50))
    one, four = (PredictOp(raw.shape, (1, 1, 1), (8, 16, 16), (2, 8, 8), "bump", batch) for batch in (1, 4))
    np.testing.assert_array_equal(by_blocks(one, raw, raw.shape), by_blocks(four, raw, raw.shape))


def test_the_lattice_covers_the_volume_and_its_last_patch_ends_at_the_border():
    lattice = Lattice((33, 100, 64), (16, 32, 64), (4, 8, 0))
    assert lattice.starts(0) == [0, 12, 17]
    assert lattice.starts(1)[-1] == 68
    assert lattice.starts(2) == [0]


def test_crop_weights_serve_every_voxel_exactly_once():
    lattice = Lattice((21, 50, 47), (8, 16, 16), (3, 5, 4))
    served = np.zeros(lattice.extent, int)
    for patch in lattice.touching(Box.of_shape(lattice.extent), "crop"):
        served[patch.slices()] += lattice.weights(patch, "crop").astype(int)
    assert (served == 1).all()


def test_the_gaussian_weights_have_the_published_values():
    weights = blending_weights((3, 101, 101), "gaussian")
    assert weights[1, 50, 50] == pytest.approx(1.0001)
    assert weights[1, 50, 75] == pytest.approx(0.044, abs=1e-3)
    assert weights[1, 50, 100] == pytest.approx(1.04e-4, rel=1e-2)


def test_the_bump_weights_are_largest_in_the_middle_and_positive_everywhere():
    weights = blending_weights((16, 32, 32), "bump")
    assert weights.max() == weights[8, 16, 16]
    assert weights.min() > 0


def test_quantising_keeps_both_ends_and_rounds_to_the_nearest_level():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantised((levels / 255).astype(np.float32)), levels)
    assert list(quantised(np.float32([0, 1, 0.5 / 255 - 1e-4, 1.5]))) == [0, 255, 0, 255]


def test_empty_input_gives_true_zeros_and_computes_no_patch():
    raw = np.zeros((16, 64, 64), np.uint8)
    op = PredictOp(raw.shape, (1, 1, 1), (8, 16, 16), (2, 4, 4), "bump")
    semantic, boundary, computed = op(
        raw, op.read_box(Box.of_shape(raw.shape)), Box.of_shape(raw.shape), normalise, Blur()
    )
    assert computed == 0
    assert not semantic.any()
    assert not boundary.any()


def test_the_empty_part_of_a_half_filled_patch_is_zero_and_single_dark_voxels_are_not():
    raw = volume((8, 32, 32))
    raw[:, :, 20:] = 0
    raw[4, 5, 5] = 0
    empty = empty_voxels(raw)
    assert empty[:, :, 20:].all()
    assert not empty[:, :, :20].any()


def test_emptiness_is_the_binary_opening_of_the_zeros_by_the_window():
    random = np.random.default_rng(3)
    for shape in ((2, 40, 31), (1, 9, 9), (3, 5, 40)):
        raw = random.integers(0, 2, shape).astype(np.uint8) * (random.random(shape) < 0.03)
        expected = ndimage.binary_opening(raw == 0, np.ones((1, 9, 9), bool))
        np.testing.assert_array_equal(empty_voxels(raw), expected)


def test_block_mean_and_interpolation_keep_a_constant_and_a_ramp():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 4, 4))
    coarse = block_mean(ramp, (2, 2, 2))
    back = interpolate(coarse, Box.of_shape(coarse.shape), Box.of_shape(ramp.shape), (2, 2, 2))
    np.testing.assert_allclose(back[1:-1, 1, 1], np.arange(64)[1:-1], atol=1e-5)


def test_a_ragged_end_repeats_its_last_voxel():
    assert block_mean(np.uint8([[[2, 4, 9]]]), (1, 1, 2)).tolist() == [[[3.0, 9.0]]]
