"""Damage is found where it is, in lone slices, runs and at the ends; sound tissue beside it stays sound."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from pipeline.denoise.ops.cells import inspected
from pipeline.denoise.ops.damage import BLUR, INTENSITY, MISSING, RESIDUAL, SATURATED, damage, damage_halo
from pipeline.denoise.ops.measures import MEASURES, Cells, histograms, limits, measures_halo
from pipeline.phantom import Phantom
from pipeline.phantom.damage import plant

UInt8 = NDArray[np.uint8]
GAP = 3
CELL = (1, 4, 4)
SHAPE = (14, 160, 160)


@pytest.fixture(scope="module")
def tissue() -> UInt8:
    made = Phantom(SHAPE, 3)
    return made.raw(made.box)


def _cells(mean: UInt8, texture: UInt8, halo: tuple[int, int, int]) -> Cells:
    widths = [(h, h) for h in halo]
    return Cells(np.pad(mean, widths), np.pad(texture, widths), np.pad(np.ones(len(mean), bool), widths[0]))


def _found(grey: UInt8, max_gap: int = GAP, sensitivity: float = 1.0) -> UInt8:
    mean, texture = inspected(grey, CELL)
    limit = limits(histograms(_cells(mean, texture, measures_halo(max_gap)), max_gap), sensitivity)
    return damage(_cells(mean, texture, damage_halo(max_gap)), max_gap, limit)


def _pixels(found: UInt8) -> NDArray[np.bool_]:
    return np.repeat(np.repeat(found > 0, 4, axis=1), 4, axis=2)


def test_sound_tissue_is_sound(tissue: UInt8) -> None:
    assert (_found(tissue)[1:-1] > 0).mean() < 0.005


@pytest.mark.parametrize(("kind", "bits"), [("fold", RESIDUAL), ("blur", BLUR), ("contrast", INTENSITY)])
def test_planted_damage_is_found_and_little_else(tissue: UInt8, kind: str, bits: int) -> None:
    damaged, truth = plant(tissue, (10.0, 10.0, 10.0), (kind,), seed=4)
    found = _found(damaged)
    there = _pixels(found)
    assert (there & (truth > 0)).sum() / (truth > 0).sum() > 0.9
    assert (there & (truth > 0)).sum() / there.sum() > 0.6
    assert (found & bits).any()


@pytest.mark.parametrize("slices", [(5,), (5, 6), (5, 6, 7), (0,), (0, 1), (13,), (4, 6), (2, 9)])
@pytest.mark.parametrize("level", [0, 255, 90])
def test_missing_slices_are_found_alone_in_runs_and_at_the_ends(
    tissue: UInt8, slices: tuple[int, ...], level: int
) -> None:
    damaged = tissue.copy()
    damaged[list(slices)] = level
    found = _found(damaged)
    bit = MISSING | SATURATED if level == 255 else MISSING
    if level == 0 and slices == (0, 1):  # padding
        assert not found[0].any()
        return
    assert (found[list(slices)] & bit == bit).all()
    assert (np.delete(found, slices, axis=0) > 0).mean() < 0.03


@pytest.mark.parametrize("slices", [(5,), (5, 6), (5, 6, 7), (0,), (13,)])
def test_a_dark_patch_is_found_in_all_its_slices_and_in_no_other(tissue: UInt8, slices: tuple[int, ...]) -> None:
    damaged = tissue.copy()
    damaged[list(slices), 60:100, 40:90] = 20 + damaged[list(slices), 60:100, 40:90] // 16
    patch = (_found(damaged) & RESIDUAL)[:, 15:25, 10:22] > 0
    for z in range(SHAPE[0]):
        assert patch[z].mean() > 0.9 if z in slices else patch[z].mean() < 0.2


def test_dark_tissue_in_a_wide_faint_region_is_no_speck_but_in_a_narrow_one_it_is(tissue: UInt8) -> None:
    for width, residual in ((150, False), (36, True)):
        damaged = tissue.copy()
        part = damaged[6, 4:, :width]
        part[:] = 20 + part // 3
        found = _found(damaged)[6, 6:34, 3 : width // 4 - 3]
        assert (found & (BLUR | INTENSITY) > 0).mean() > 0.9
        assert (found & RESIDUAL > 0).any() == residual


def test_the_blurred_rim_of_a_fold_belongs_to_the_fold(tissue: UInt8) -> None:
    damaged, _ = plant(tissue, (10.0, 10.0, 10.0), ("fold",), seed=4)
    found = _found(damaged)
    beside = (found & (BLUR | INTENSITY) > 0) & maximum_filter(found & RESIDUAL > 0, (1, 5, 5))
    assert beside.sum() > 500
    assert (found[beside] & RESIDUAL == 0).mean() < 0.06  # 0.14 where only cells with a residual of their own are


def test_a_blurred_slice_is_not_missing(tissue: UInt8) -> None:
    damaged = tissue.copy()
    damaged[6] = gaussian_filter(tissue[6].astype(np.float32), 9)
    found = _found(damaged)[6]
    assert (found & BLUR > 0).mean() > 0.9 and not (found & MISSING).any()


def test_a_run_longer_than_can_be_bridged_is_left_alone(tissue: UInt8) -> None:
    damaged = tissue.copy()
    damaged[4:8] = 0
    assert not (_found(damaged) & MISSING).any()
    assert (_found(damaged, max_gap=4)[4:8] & MISSING == MISSING).all()


def test_padding_around_the_tissue_is_not_missing(tissue: UInt8) -> None:
    padded = tissue.copy()
    padded[:, :40] = 0
    padded[9:, :, 100:] = 0
    found = _found(padded)
    assert not (found[:, :9] | np.where(np.arange(14)[:, None, None] >= 9, found, 0)[:, :9]).any()
    assert not found[9:, :, 26:].any()


def test_sensitivity_finds_more(tissue: UInt8) -> None:
    damaged, _ = plant(tissue, (10.0, 10.0, 10.0), strength=0.3, seed=4)
    shares = [(_found(damaged, sensitivity=s) > 0).mean() for s in (0.5, 1.0, 2.0)]
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("slices", [1, 2])
def test_volumes_of_one_and_two_slices_and_empty_ones_are_sound(tissue: UInt8, slices: int) -> None:
    assert not _found(tissue[:slices]).any() or slices == 2
    assert not _found(np.zeros((slices, 9, 5), np.uint8)).any()
    assert not _found(np.zeros_like(tissue)).any()


def test_damage_does_not_depend_on_the_box_it_is_computed_in(tissue: UInt8) -> None:
    damaged, _ = plant(tissue, (10.0, 10.0, 10.0), seed=1, spacing=4)
    mean, texture = inspected(damaged, CELL)
    limit = limits(histograms(_cells(mean, texture, measures_halo(GAP)), GAP))
    halo = damage_halo(GAP)
    around = _cells(mean, texture, halo)
    whole = damage(around, GAP, limit)
    assert whole.any()
    z, y, x = slice(3, 9), slice(5, 30), slice(18, 40)
    read = tuple(slice(s.start, s.stop + 2 * h) for s, h in zip((z, y, x), halo, strict=True))
    part = Cells(around.mean[read], around.texture[read], around.exists[read[0]])
    np.testing.assert_array_equal(damage(part, GAP, limit), whole[z, y, x])


@pytest.mark.parametrize("axis", [1, 2])
def test_a_wide_faint_region_is_the_same_damage_however_blocks_cut_it(tissue: UInt8, axis: int) -> None:
    damaged, region = tissue.copy(), [slice(6, 7), slice(None), slice(None)]
    region[axis] = slice(80)  # 20 cells: just wide enough, so that all of them decide
    damaged[*region] = 20 + tissue[*region] // 3
    mean, texture = inspected(damaged, CELL)
    limit = limits(histograms(_cells(mean, texture, measures_halo(GAP)), GAP))
    halo = damage_halo(GAP)
    around = _cells(mean, texture, halo)
    whole = damage(around, GAP, limit)
    assert (whole[6] & (BLUR | INTENSITY) > 0).mean() > 0.4 and (whole[6] & RESIDUAL > 0).mean() < 0.01
    for first, last in ((0, 4), (16, 20), (18, 40)):
        read, core = ([slice(None)] * 3 for _ in range(2))
        read[axis], core[axis] = slice(first, last + 2 * halo[axis]), slice(first, last)
        part = Cells(around.mean[*read], around.texture[*read], around.exists)
        np.testing.assert_array_equal(damage(part, GAP, limit), whole[*core])


def test_limits_follow_the_volume_and_not_its_damage() -> None:
    counts = np.zeros((len(MEASURES), GAP, 2048), np.int64)
    counts[..., 1024 - 80 : 1024 + 80] = 100
    clean = limits(counts)
    counts[..., 1024 + 900] = 100 * 160 // 20  # a twentieth lies far outside
    assert np.all(limits(counts) < 1.3 * clean)
    np.testing.assert_allclose(limits(counts, 2.0), limits(counts) / 2)


@pytest.mark.parametrize("sensitivity", [1e-40, 1e40])
def test_no_sensitivity_overflows(tissue: UInt8, sensitivity: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = _found(tissue, sensitivity=sensitivity)
    assert found.any() == (sensitivity > 1)
