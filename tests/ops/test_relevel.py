"""Badly exposed regions get the levels of their neighbours back; blur, black and sound tissue are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.denoise.ops.cells import inspected
from pipeline.denoise.ops.relevel import relevel_halo, relevelled, relevelling
from pipeline.geometry import Box
from pipeline.phantom import Phantom

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
SIDE, GAP = 4, 3
SHAPE = (9, 200, 240)
CELLS = (9, 50, 60)
FAINT = np.s_[4, 20:, 40:]  # pixels
FAINT_CELLS = np.s_[4, 5:, 10:]


@pytest.fixture(scope="module")
def tissue() -> UInt8:
    made = Phantom(SHAPE, 3)
    return made.raw(made.box)


def _table(grey: UInt8, damaged: Bool, core: Box | None = None) -> NDArray[np.float32]:
    """Gains and offsets of a box of cells, read with no more than the halo."""
    core = core or Box.of_shape(CELLS)
    mean, _ = inspected(grey, (1, SIDE, SIDE))
    z, y, x = relevel_halo(GAP)
    low = max(0, core.start[0] - z)
    around = tuple(slice(a, b + 2 * h) for a, b, h in zip(core.start[1:], core.stop[1:], (y, x), strict=True))
    read = (slice(low, core.stop[0] + z), *around)
    mean, damaged = (np.pad(array, ((0, 0), (y, y), (x, x)))[read] for array in (mean, damaged))
    return relevelling(mean, damaged, damaged, GAP, core.start[0] - low, core.shape[0])


def _flagged(*slices: int) -> Bool:
    damaged = np.zeros(CELLS, np.bool_)
    damaged[list(slices), 5:, 10:] = True
    return damaged


def _faint(grey: UInt8, gain: float = 0.45, shift: float = -40.0, slices: tuple[int, ...] = (4,)) -> UInt8:
    damaged = grey.copy()
    for z in slices:
        part = damaged[z, 20:, 40:]
        part[:] = np.where(part == 0, 0, np.clip((part - 128.0) * gain + 128 + shift, 1, 255))
    return damaged


def _brought_back(grey: UInt8, damaged: Bool) -> UInt8:
    return relevelled(grey, _table(grey, damaged), SIDE, Box.of_shape(SHAPE), (0, 0))


@pytest.mark.parametrize("slices", [(4,), (4, 5), (3, 4, 5), (0,), (8,)])
@pytest.mark.parametrize("shift", [-40.0, 40.0])
def test_a_faint_region_gets_its_levels_back(tissue: UInt8, slices: tuple[int, ...], shift: float) -> None:
    given = _faint(tissue, shift=shift, slices=slices)
    made = _brought_back(given, _flagged(*slices))
    off = [
        np.abs(grey[list(slices), 30:, 50:].astype(int) - tissue[list(slices), 30:, 50:]).mean()
        for grey in (given, made)
    ]
    assert off[1] < 8 < 25 < off[0]


def test_nothing_else_changes(tissue: UInt8) -> None:
    given = _faint(tissue)
    made = _brought_back(given, _flagged(4))
    changed = made != given
    assert changed[FAINT].mean() > 0.9
    changed[4, 20 - SIDE // 2 :, 40 - SIDE // 2 :] = False
    assert not changed.any()


def test_what_differs_as_sound_slices_do_is_left(tissue: UInt8) -> None:
    assert not (_brought_back(tissue, _flagged(4)) != tissue).any()


def test_a_region_without_contrast_is_left(tissue: UInt8) -> None:
    given = _faint(tissue, gain=0.05)
    assert not (_brought_back(given, _flagged(4)) != given).any()


def test_a_few_cells_are_left(tissue: UInt8) -> None:
    given, damaged = _faint(tissue), np.zeros(CELLS, np.bool_)
    damaged[4, 20:27, 20:29] = True
    assert not (_brought_back(given, damaged) != given).any()


def test_a_run_that_is_too_long_is_left(tissue: UInt8) -> None:
    slices = (2, 3, 4, 5)
    given = _faint(tissue, slices=slices)
    assert not (_brought_back(given, _flagged(*slices)) != given).any()


def test_what_is_empty_stays_empty_and_nothing_becomes_it(tissue: UInt8) -> None:
    given = _faint(tissue, shift=60.0)
    given[4, 100:110, 100:110] = 0
    made = _brought_back(given, _flagged(4))
    np.testing.assert_array_equal(made == 0, given == 0)


@pytest.mark.parametrize(
    "core", [Box((4, 3, 7), (5, 20, 31)), Box((2, 20, 40), (6, 50, 60)), Box((4, 30, 10), (5, 31, 11))]
)
def test_the_levels_do_not_depend_on_the_box_they_are_computed_in(tissue: UInt8, core: Box) -> None:
    given, damaged = _faint(tissue), _flagged(4)
    whole = _table(given, damaged)
    assert (whole[core.slices()] != [1, 0]).any()
    np.testing.assert_array_equal(_table(given, damaged, core), whole[core.slices()])
    box = Box(*(tuple(n * f for n, f in zip(at, (1, SIDE, SIDE), strict=True)) for at in (core.start, core.stop)))
    near = core.grown((0, 1, 1)).clipped(Box.of_shape(CELLS))
    part = relevelled(given[box.slices()], whole[near.slices()], SIDE, box, near.start[1:])
    np.testing.assert_array_equal(part, _brought_back(given, damaged)[box.slices()])
