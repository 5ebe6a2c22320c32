"""How far cells lie outside what the slices around them allow, by several measures.

A cell (see ``cells`` beside this module) is compared with the range that two slices span, one below and one above it,
for every run of up to ``max_gap`` damaged slices that could hold it: a lone damaged slice is seen against its own
neighbours, the middle of three against the slices two away. The sound neighbour of a damaged slice stays sound, because
damage only widens a range. Where nothing is on one side (the first and last slices, the rim of the tissue, a missing
slice) three slices of the other side span the range.

Everything is made of whole numbers (distances in quarters of a grey level, or of a step of texture) and looks a fixed
number of cells far, so the result has the same bits for every block shape. Axes z, y, x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from pipeline.arrays import Bool, Float32, Int64, UInt8
from pipeline.geometry import Vec3, vec3

_Sample = TypeVar("_Sample", np.bool_, np.int16)

Int16 = NDArray[np.int16]

BINS = 2048  # of a histogram: distances from -1024 to 1023 quarters
STEPS = 4  # quarters
_NOTHING = np.int16(8000)  # stands for the features of a cell where nothing is: above all that there can be
_ONE_SIDED = 3  # slices that span a range alone
# Up to one cell in six may be damaged without a deviation taking notice.
_DEVIATION_QUANTILE = 0.84
_STRICTER = (1.0, 1.2, 1.4)  # for runs of 1, 2, 3 and more: they are compared over more tissue
# Against the limit of lone slices. There are too few ends for limits of their own: a damaged one would be half of them.
_ONE_SIDED_STRICTER = 2.4
_MOST_TEXTURE = 30 * STEPS
_LIMITS = 0.01, 1e6  # quarters; beyond them nothing changes, and float32 overflows


@dataclass(frozen=True)
class Measure:
    """A feature of a cell that lies below (``sign`` 1) or above (-1) its range.

    Attributes:
        feature: mean grey level or texture, averaged over ``window`` x ``window`` cells.
        tolerance: cells by which tissue may have moved from slice to slice.
        least, deviations: the limit is this many deviations, but not less than ``least`` whole steps.
        textured: twice the texture that is lost adds to a distance: opaque matter has none.
    """

    feature: Literal["level", "texture"]
    sign: int
    window: int
    least: float
    deviations: float
    tolerance: int = 0
    textured: bool = False


class NeighbourComparison(NamedTuple):
    """With which slices (offsets in z) the cells of a box are compared, and which of them can be (``there``).

    ``limit`` numbers the limit that holds: the length of the run - 1, or the last for one side alone.
    """

    limit: int
    slices: tuple[int, ...]
    there: Bool


# Windows, tolerances and deviations were chosen on lucchi 132-164, drosophila_vnc and sbem_mouse, clean and damaged.
MEASURES = {
    "dark": Measure("level", 1, 3, 30, 4.5, tolerance=1, textured=True),
    "dark band": Measure("level", 1, 5, 30, 4.5, tolerance=1, textured=True),
    "bright": Measure("level", -1, 3, 30, 5, tolerance=1, textured=True),
    "flat": Measure("texture", 1, 5, 10, 4),
    "flat region": Measure("texture", 1, 9, 9, 5),
    "darker": Measure("level", 1, 3, 10, 5),
    "darker region": Measure("level", 1, 17, 10, 6),
    "brighter": Measure("level", -1, 3, 10, 5),
    "brighter region": Measure("level", -1, 17, 10, 6),
}
_LOST = Measure("texture", 1, 3, 0, 0, tolerance=1)
_REACH = max(m.window // 2 + m.tolerance for m in MEASURES.values())


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a box and its surroundings, all z, y, x.

    Attributes:
        mean, texture: of ``inspected``, uint8.
        exists: bool, one a slice: False outside the volume.
    """

    mean: UInt8
    texture: UInt8
    exists: Bool

    @property
    def present(self) -> Bool:
        """True for cells with tissue: not empty, nor all of one grey level."""
        return (self.mean > 0) & (self.texture > 0)


def measures_halo(max_gap: int) -> Vec3:
    """Cells (z, y, x) around a box that decide its distances."""
    return vec3((max_gap + _ONE_SIDED - 1, _REACH, _REACH))


def histograms(cells: Cells, max_gap: int) -> Int64:
    """How many cells of a box lie how far outside their ranges.

    Args:
        cells: the box grown by ``measures_halo``.
        max_gap: the longest run of damaged slices.

    Returns:
        int64 (measure, length of the run - 1, bin); those of several boxes may be added.
    """
    counts = np.zeros((len(MEASURES), max_gap, BINS), np.int64)
    for number, run, distance in _distances(cells, max_gap):
        if run.limit == max_gap:
            continue
        bins = np.clip(distance[run.there].astype(np.int64) + BINS // 2, 0, BINS - 1)
        counts[number, run.limit] += np.bincount(bins, minlength=BINS)
    return counts


def limits(counts: Int64, sensitivity: float = 1.0) -> Float32:
    """From ``histograms`` of a whole volume, the distance from which a cell is damaged.

    Args:
        counts: sums of ``histograms``.
        sensitivity: 2 finds what is half as far outside, 0.5 only what is twice as far.

    Returns:
        float32 (measure, length of the run - 1; the last one-sided), in quarters.
    """
    middle = _quantile(counts, 0.5)
    deviation = _quantile(counts, _DEVIATION_QUANTILE) - middle
    stricter = np.array([_STRICTER[min(run, len(_STRICTER) - 1)] for run in range(counts.shape[1])])
    least, deviations = np.array([(m.least * STEPS, m.deviations) for m in MEASURES.values()]).T[:, :, None]
    found = np.maximum(middle + deviations * stricter * deviation, least)
    wanted = np.append(found, _ONE_SIDED_STRICTER * found[:, :1], axis=1) / sensitivity
    return np.asarray(np.clip(wanted, *_LIMITS), np.float32)


def deviations(cells: Cells, max_gap: int, limit: Float32) -> Float32:
    """The farthest that each cell lies outside a range, in units of the limit.

    Args:
        cells: the box grown by ``measures_halo``.
        max_gap: the longest run of damaged slices.
        limit: of ``limits``.

    Returns:
        float32 (measure, z, y, x) of the box; 0 for cells inside all their ranges.
    """
    shape = vec3(cells.mean.shape) - measures_halo(max_gap) * 2
    score = np.zeros((len(MEASURES), *shape), np.float32)
    for number, run, distance in _distances(cells, max_gap):
        scaled = distance / limit[number, run.limit]
        np.maximum(score[number], scaled, out=score[number], where=run.there)
    return score


def _distances(cells: Cells, max_gap: int) -> Iterator[tuple[int, NeighbourComparison, Int16]]:
    """For each measure, by its number, and each comparison how far the cells of the box lie outside the range."""
    halo = measures_halo(max_gap)[0]
    count = len(cells.mean) - 2 * halo
    runs = _comparisons(_cropped(cells.present), max_gap)
    lost, texture = _least(cells, _LOST)
    for number, measure in enumerate(MEASURES.values()):
        least, value = _least(cells, measure)
        for run in runs:
            distance = _lowest(least, run, halo, count) - value[halo : halo + count]
            if measure.textured:
                loss = _lowest(lost, run, halo, count) - texture[halo : halo + count]
                distance += np.where(distance > 0, 2 * np.clip(loss, 0, _MOST_TEXTURE), 0).astype(np.int16)
            yield number, run, distance


def _comparisons(present: Bool, max_gap: int) -> list[NeighbourComparison]:
    halo = measures_halo(max_gap)[0]
    count = len(present) - 2 * halo
    at = {k: present[halo + k : halo + k + count] for k in range(-halo, halo + 1)}
    found = []
    for length, first, last in runs_through(max_gap):
        both = at[0] & at[first] & at[last]
        found.append(NeighbourComparison(length - 1, (first, last), both))
        for one, away in ((first, -1), (last, 1)):
            slices = tuple(one + away * k for k in range(_ONE_SIDED))
            enough = sum(at[k].astype(np.int8) for k in slices) >= 2
            alone = at[0] & at[one] & enough & ~both
            if alone.any():
                found.append(NeighbourComparison(max_gap, slices, alone))
    return found


def runs_through(max_gap: int) -> list[tuple[int, int, int]]:
    """Every run of damaged slices that holds slice 0: its length, the last slice below it, the first above."""
    return [(length, -below, length + 1 - below) for length in range(1, max_gap + 1) for below in range(1, length + 1)]


def _lowest(least: Int16, run: NeighbourComparison, halo: int, count: int) -> Int16:
    lowest: Int16 = np.minimum.reduce([least[halo + k : halo + k + count] for k in run.slices])
    return lowest


def _least(cells: Cells, measure: Measure) -> tuple[Int16, Int16]:
    """The lower end of what each cell allows its neighbours in z, and its own feature; negated for sign -1."""
    present = cells.present
    values = np.where(present, cells.mean if measure.feature == "level" else cells.texture, 0).astype(np.int32)
    half = measure.window // 2
    mean = windowed(values, half) / np.maximum(windowed(present.astype(np.int32), half), 1)
    feature = measure.sign * np.rint(STEPS * mean).astype(np.int16)
    least = np.where(present, feature, _NOTHING)
    if measure.tolerance:
        width = 2 * measure.tolerance + 1
        least = minimum_filter(least, (1, width, width))
    return _cropped(least), _cropped(feature)


def windowed(values: NDArray[np.int32], half: int) -> NDArray[np.int32]:
    """Sums over windows of 2 half + 1 cells in the plane; beyond the array is nothing."""
    for axis in (1, 2):
        padded = np.pad(values, [(half + 1, half) if a == axis else (0, 0) for a in range(3)])
        sums = np.cumsum(padded, axis=axis, dtype=np.int32)
        every = (slice(None),) * axis
        values = sums[(*every, slice(2 * half + 1, None))] - sums[(*every, slice(None, -2 * half - 1))]
    return values


def _quantile(counts: Int64, share: float) -> NDArray[np.float64]:
    """The distance in quarters that a share of the counted cells do not exceed; -1024 where nothing is counted."""
    below = np.cumsum(counts, axis=-1)
    return np.asarray((below < share * below[..., -1:]).sum(axis=-1) - BINS // 2, np.float64)


def _cropped(array: NDArray[_Sample]) -> NDArray[_Sample]:
    return array[:, _REACH:-_REACH, _REACH:-_REACH]
