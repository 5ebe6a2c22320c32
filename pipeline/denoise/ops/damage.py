"""Which cells of a volume are damaged: those that look like nothing that can lie between the slices around them.

How far the cells of this very volume lie outside what their neighbours allow (``measures``) decides how far is too far.
Damage is found by windows, which see little differences, and outlined by the cells themselves, which know where it
ends. Everything looks a fixed number of cells far, so the map has the same bits for every block shape. Axes z, y, x.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening, maximum_filter

from pipeline.arrays import Bool, Float32, UInt8
from pipeline.denoise.ops.measures import MEASURES, STEPS, Cells, deviations, measures_halo, runs_through, windowed
from pipeline.geometry import Vec3, vec3

MISSING, RESIDUAL, BLUR, INTENSITY, SATURATED = 1, 2, 4, 8, 16
BITS = {"missing": MISSING, "residual": RESIDUAL, "blur": BLUR, "intensity": INTENSITY, "saturated": SATURATED}

_WHITE = 250  # a damaged cell of this grey level is saturated
_GROWTH = 4  # cells by which what a window found may reach further
_SUPPORT = 4  # cells on each side of one that decide whether it lies in a region
_OUTLINE = 0.5  # of the limit: what a cell itself must show to belong to what was found there
# Of the highest score at most _PEAK cells away: what lies lower is the slope of a window.
_EDGE, _SPECK_EDGE = 0.4, 0.3
_PEAK = 2
_WIDE, _FILLED = 11, 0.8  # a wide region holds this share of a window of 2 x 11 + 1 cells; folds and specks do not
_OPAQUE = 48 * STEPS  # texture, two doublings: what loses it and has another level has no tissue to bring back
_FRINGE = 2  # cells beside a fold or a speck that a window finds blurred or pale for its sake
_RIM = _PEAK + _SUPPORT + _GROWTH + 1 + 2 * _WIDE + _FRINGE
_SQUARE = np.ones((1, 3, 3), bool)
_NUMBER = {name: number for number, name in enumerate(MEASURES)}


class Finding(NamedTuple):
    """A bit of the map: what finds it, and what a cell must show half of to belong to it.

    A ``region`` is only found where half of the cells around belong to it: dark specks darken all windows that hold
    them.
    """

    bit: int
    seeds: tuple[str, ...]
    outline: tuple[str, ...]
    region: bool = False


FINDINGS = (
    Finding(RESIDUAL, ("dark", "dark band"), ("dark",)),
    Finding(RESIDUAL, ("bright",), ("bright",)),
    Finding(BLUR, ("flat region",), ("flat",), region=True),
    Finding(INTENSITY, ("darker region",), ("darker", "flat"), region=True),
    Finding(INTENSITY, ("brighter region",), ("brighter", "flat"), region=True),
)


def damage_halo(max_gap: int) -> Vec3:
    """Cells (z, y, x) around a box that decide its damage: the growth and closing of regions reach further."""
    return measures_halo(max_gap) + vec3((0, _RIM, _RIM))


def damage(cells: Cells, max_gap: int, limit: Float32) -> UInt8:
    """The damage map of a box: 0 sound, else bits of what was found.

    Args:
        cells: the box grown by ``damage_halo``.
        max_gap: the longest run of damaged slices that can be found.
        limit: of ``limits``.

    Returns:
        uint8, of the box.
    """
    z, y, x = measures_halo(max_gap)
    inner = slice(z, -z), slice(y, -y), slice(x, -x)
    score = deviations(cells, max_gap, limit)
    found = np.zeros(score.shape[1:], np.uint8)
    for finding in FINDINGS:
        found[_reached(score, finding)] |= finding.bit
    missing = _missing(cells, max_gap)[:, inner[1], inner[2]]
    found[binary_dilation(missing, _SQUARE)] |= MISSING  # a tear goes through cells
    _tell_apart(found, score, limit)
    found[(found > 0) & (cells.mean[inner] >= _WHITE)] |= SATURATED
    return found[:, _RIM:-_RIM, _RIM:-_RIM]


def _tell_apart(found: UInt8, score: Float32, limit: Float32) -> None:
    """What is darker in a wide blurred or badly exposed region is no fold and no speck; a blur beside these is one."""
    region = (found & (BLUR | INTENSITY)) > 0
    if not (region & _near(found)).any():
        return
    side = 2 * _WIDE + 1
    filled = windowed(region.astype(np.int32), _WIDE) > _FILLED * side**2
    wide = region & maximum_filter(filled, (1, side, side))
    flat = _NUMBER["flat"]
    opaque = ((found & INTENSITY) > 0) & (score[flat] * limit[flat, 0] > _OPAQUE)
    found[wide & ~opaque] &= ~np.uint8(RESIDUAL)
    found[region & ~wide & _near(found)] |= RESIDUAL


def _near(found: UInt8) -> Bool:
    """Cells at most ``_FRINGE`` away from what is darker or brighter than its neighbours."""
    side = 2 * _FRINGE + 1
    near: Bool = maximum_filter((found & RESIDUAL) > 0, (1, side, side))
    return near


def long_gaps(tissue: Bool, max_gap: int) -> list[tuple[int, int]]:
    """Where more than ``max_gap`` slices are missing: the slice before and the slice after each such run.

    Args:
        tissue: of ``pipeline.denoise.ops.slices.hold_tissue``.
        max_gap: the longest run that ``damage`` finds.
    """
    return [(low, high) for low, high in pairwise(np.flatnonzero(tissue).tolist()) if high - low > max_gap + 1]


def lost(present: Bool, before: Bool, after: Bool) -> Bool:
    """The cells of a long gap where nothing is, although something is before and after it, with a rim of one.

    Args:
        present: cells with tissue in slices of the gap, with one more cell on each side in the plane.
        before, after: the same of the slices around the gap, (1, y, x).
    """
    return np.asarray(binary_dilation(~present & before & after, _SQUARE)[:, 1:-1, 1:-1])


def _reached(score: Float32, finding: Finding) -> Bool:
    """What is found, grown through the cells that belong to it."""
    found: Bool = score[[_NUMBER[name] for name in finding.seeds]].max(axis=0) > 1
    if not found.any():
        return found
    belongs = reduce(
        np.logical_or,
        (_outlined(score[_NUMBER[name]], _EDGE if finding.region else _SPECK_EDGE) for name in finding.outline),
    )
    if finding.region:
        found &= 2 * windowed(belongs.astype(np.int32), _SUPPORT) > (2 * _SUPPORT + 1) ** 2
    return _closed(belongs & binary_dilation(found, _SQUARE, _GROWTH, found | belongs))


def _outlined(score: Float32, height: float) -> Bool:
    """Cells that belong to damage by themselves: windows reach over its edge, but are low there."""
    peak = maximum_filter(score, (1, 2 * _PEAK + 1, 2 * _PEAK + 1))
    return np.asarray(score > np.maximum(np.float32(_OUTLINE), np.float32(height) * peak))


def _closed(found: Bool) -> Bool:
    """Without cells that stand alone, and with those that most neighbours surround."""
    around = windowed(found.astype(np.int32), 1)
    return np.asarray((found & (around >= 2)) | (around >= 6))


def _missing(cells: Cells, max_gap: int) -> Bool:
    """Cells where nothing is, although something is below and above, or up to the end of the volume.

    Zeros in several slices at an end are padding, for example up to whole chunks; in one slice it is missing. Of one
    grey level must be cells side by side: in a blurred slice lone ones are, too.
    """
    halo, present = measures_halo(max_gap)[0], cells.present
    count = len(present) - 2 * halo
    ends, filled = ~cells.exists[:, None, None], cells.mean[halo : halo + count] > 0
    sound = np.zeros((count, *present.shape[1:]), bool)
    for length, first, last in runs_through(max_gap):
        low, high = (slice(halo + k, halo + k + count) for k in (first, last))
        sound |= present[low] & present[high]
        last_ones = (present[low] & ends[high]) | (ends[low] & present[high])
        sound |= last_ones if length == 1 else last_ones & filled
    here = slice(halo, halo + count)
    uniform = binary_opening((cells.mean[here] > 0) & ~present[here], _SQUARE)
    return np.asarray(sound & ((cells.mean[here] == 0) | uniform) & ~ends[here])
