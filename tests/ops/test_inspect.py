"""Cells of slices: their size, mean and texture, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.denoise.ops.cells import TEXTURE_SCALE, cell_shape, inspected


@pytest.mark.parametrize(
    ("voxel_size_nm", "side"),
    [((30, 8, 8), 4), ((5, 5, 5), 8), ((50, 4.6, 4.6), 8), ((10, 10, 10), 4), ((40, 60, 60), 2), ((1, 1, 0.5), 32)],
)
def test_a_cell_is_about_forty_nanometres_wide(voxel_size_nm: tuple[float, float, float], side: int) -> None:
    assert cell_shape(voxel_size_nm) == (1, side, side)


@pytest.mark.parametrize("shape", [(3, 16, 24), (2, 13, 18), (1, 9, 9), (1, 1, 1)])
def test_mean_and_texture_are_those_of_the_pixels_that_are_there(shape: tuple[int, int, int]) -> None:
    grey = np.random.default_rng(5).integers(1, 256, shape).astype(np.uint8)
    mean, texture = inspected(grey, (1, 4, 4))
    for z, y, x in np.ndindex(mean.shape):
        pixels = grey[z, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].astype(float)
        assert mean[z, y, x] == np.floor(pixels.mean() + 0.5)
        squares = np.abs(pixels[:-1, :-1] - pixels[:-1, 1:] - pixels[1:, :-1] + pixels[1:, 1:])
        code = np.rint(TEXTURE_SCALE * np.log2(1 + 4 * squares.mean())) if squares.size else 1
        assert texture[z, y, x] == min(code, 255)


def test_empty_pixels_do_not_darken_a_cell_and_an_empty_cell_is_zero() -> None:
    grey = np.full((1, 4, 8), 90, np.uint8)
    grey[0, :2, :4] = 0  # half of the first cell
    grey[0, :3, 4:] = 0  # three quarters of the second
    mean, _ = inspected(grey, (1, 4, 4))
    assert mean.tolist() == [[[90, 0]]]


def test_equal_pixels_have_no_texture_and_neither_has_a_slope() -> None:
    grey = np.full((1, 8, 8), 7, np.uint8)
    grey[0, :, 4:] = np.arange(10, 50, 10)
    assert not inspected(grey, (1, 4, 4))[1].any()


def test_cells_do_not_depend_on_the_box_they_are_computed_in() -> None:
    grey = np.random.default_rng(6).integers(0, 256, (4, 40, 52)).astype(np.uint8)
    whole = inspected(grey, (1, 4, 4))
    part = inspected(grey[1:3, 8:, 12:44], (1, 4, 4))
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[1:3, 2:, 3:11], b)
