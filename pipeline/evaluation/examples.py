"""Which instances are worth a look, and where they lie: the best, the worst, false merges and false splits.

A false merge is a prediction that holds more than half the voxels of each of two or more true instances; a false split
is a true instance that holds more than half the voxels of each of two or more predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Counts, Ids
from pipeline.evaluation.overlaps import Contingency
from pipeline.evaluation.precision import Ranked
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.volume import Volume

ExampleGroup = Literal["best", "worst", "false merges", "false splits"]
GROUPS: tuple[ExampleGroup, ...] = ("best", "worst", "false merges", "false splits")
EACH = 4
_PARTS = 6  # ids of one merge or split that are shown; the largest ones


@dataclass(frozen=True, slots=True)
class Example:
    """Ids to look at together, uint64 as int; ``iou`` of the best pair among them, ``voxels`` that rank it."""

    group: ExampleGroup
    predictions: tuple[int, ...]
    truths: tuple[int, ...]
    iou: float


@dataclass
class Extent:
    """Where an example lies.

    Attributes:
        low, high: corner voxels z, y, x of its box, half-open.
        areas: for each axis the voxels of each part in each plane, int64 (parts, planes).
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    areas: list[Counts] = field(default_factory=list)

    @property
    def box(self) -> Box:
        """The box around all its ids."""
        return Box(vec3(self.low), vec3(self.high))

    @property
    def centre(self) -> Vec3:
        """The three planes that show most, of the part that shows least, then of all; of equals the middle one."""
        return vec3(_middle_of_largest(areas.min(axis=0), areas.sum(axis=0)) for areas in self.areas)


def chosen_examples(table: Contingency, each: int = EACH) -> list[Example]:
    """Up to ``each`` examples of every group, those that matter most first."""
    pairs = _Pairs(table)
    return [*_best_and_worst(table, each), *pairs.merges(each), *pairs.splits(each)]


def located_examples(
    examples: Sequence[Example],
    tables: Iterable[tuple[int, Contingency]],
    grid: BlockGrid,
    prediction: Volume,
    truth: Volume,
) -> list[Extent]:
    """Where the examples lie; reads only blocks that hold one, one at a time.

    Args:
        examples: as chosen.
        tables: the numbers of blocks with their tables of overlaps.
        grid: of these blocks.
        prediction, truth: the volumes.
    """
    found = [_nowhere(example, grid.extent) for example in examples]
    for number, table in tables:
        here = [place for place, example in enumerate(examples) if _holds(table, example)]
        if here:
            core = grid[number].core
            labels = prediction.read(core), truth.read(core)
            for place in here:
                _add(found[place], examples[place], labels, core)
    return found


class _Pairs:
    """Overlapping instances: the rows of a table above the background, with the sizes of both."""

    def __init__(self, table: Contingency) -> None:
        both = (table.prediction > 0) & (table.truth > 0)
        self.p, self.t, self.shared = table.prediction[both], table.truth[both], table.voxels[both]
        self.p_voxels = _looked_up(table.prediction_sizes(), self.p)
        self.t_voxels = _looked_up(table.truth_sizes(), self.t)

    def merges(self, each: int) -> list[Example]:
        """Predictions that hold most of several true instances."""
        return [
            Example("false merges", (one,), many, iou)
            for one, many, iou in self._several(self.p, self.t, self.t_voxels, each)
        ]

    def splits(self, each: int) -> list[Example]:
        """True instances that hold most of several predictions."""
        return [
            Example("false splits", many, (one,), iou)
            for one, many, iou in self._several(self.t, self.p, self.p_voxels, each)
        ]

    def _several(self, whole: Ids, part: Ids, voxels: Counts, each: int) -> list[tuple[int, tuple[int, ...], float]]:
        """Wholes of two parts or more, that with the largest second part first."""
        rows = np.flatnonzero(2 * self.shared > voxels)
        rows = rows[np.lexsort((part[rows], -self.shared[rows], whole[rows]))]
        _, starts, counts = np.unique(whole[rows], return_index=True, return_counts=True)
        starts, counts = starts[counts > 1], counts[counts > 1]
        order = np.lexsort((whole[rows[starts]], -self.shared[rows[starts + 1]]))[:each]
        iou = self.shared / (self.p_voxels + self.t_voxels - self.shared)
        found = []
        for start, count in zip(starts[order].tolist(), counts[order].tolist(), strict=True):
            own = rows[start : start + count]
            found.append((int(whole[own[0]]), tuple(part[own[:_PARTS]].tolist()), float(iou[own].max())))
        return found


def _best_and_worst(table: Contingency, each: int) -> list[Example]:
    """True instances by the IoU of their best prediction; predictions that touch none are among the worst."""
    ranked = Ranked(table)
    predictions, iou = ranked.best_of_truth()
    false = np.flatnonzero(ranked.matched().iou == 0)
    none = np.zeros(len(false), np.uint64)
    p = np.concatenate([predictions, ranked.ids[false]])
    t = np.concatenate([ranked.true_ids, none])
    iou = np.concatenate([iou, np.zeros(len(false))])
    voxels = np.concatenate([ranked.true_voxels, ranked.voxels[false]])
    rising = np.lexsort((p, t, -voxels, iou))
    falling = np.lexsort((p, t, -voxels, -iou))
    good = int(np.count_nonzero(iou))
    best = falling[: min(each, good - good // 2)]
    worst = rising[: min(each, len(rising) - len(best))]
    groups: list[tuple[ExampleGroup, NDArray[np.intp]]] = [("best", best), ("worst", worst)]
    return [Example(group, _some(p[at]), _some(t[at]), float(iou[at])) for group, rows in groups for at in rows]


def _some(identity: np.uint64) -> tuple[int, ...]:
    return (int(identity),) if identity else ()


def _looked_up(sizes: tuple[Ids, Counts], ids: Ids) -> Counts:
    found: Counts = sizes[1][np.searchsorted(sizes[0], ids)]
    return found


def _ids(values: tuple[int, ...]) -> Ids:
    return np.array(values, np.uint64)


def _holds(table: Contingency, example: Example) -> bool:
    predicted = np.isin(table.prediction, _ids(example.predictions))
    return bool((predicted | np.isin(table.truth, _ids(example.truths))).any())


def _nowhere(example: Example, extent: Vec3) -> Extent:
    parts = len(_parts(example))
    areas = [np.zeros((parts, length), np.int64) for length in extent]
    return Extent(np.array(extent, np.int64), np.zeros(3, np.int64), areas)


def _middle_of_largest(least: Counts, together: Counts) -> int:
    """The median place among those of the largest (least, together)."""
    most = np.flatnonzero(least == least.max())
    most = most[together[most] == together[most].max()]
    return int(most[(len(most) - 1) // 2])


def _parts(example: Example) -> list[tuple[int | None, int | None]]:
    """The pairs (prediction, truth), None for any, that a plane should show: the two largest of a merge or a split."""
    if example.group == "false merges":
        return [(example.predictions[0], one) for one in example.truths[:2]]
    if example.group == "false splits":
        return [(one, example.truths[0]) for one in example.predictions[:2]]
    return [(None, example.truths[0])] if example.truths else [(example.predictions[0], None)]


def _add(extent: Extent, example: Example, labels: tuple[NDArray[np.generic], ...], core: Box) -> None:
    whole = _any_of(labels[0], example.predictions) | _any_of(labels[1], example.truths)
    planes = [np.flatnonzero(whole.any(axis=_others(axis))) for axis in range(3)]
    own = Box(vec3(found[0] for found in planes), vec3(found[-1] + 1 for found in planes))
    extent.low = np.minimum(extent.low, own.shifted(core.start).start)
    extent.high = np.maximum(extent.high, own.shifted(core.start).stop)
    prediction, truth = (side[own.slices()] for side in labels)
    for part, (p, t) in enumerate(_parts(example)):
        shown = _any_of(prediction, None if p is None else (p,)) & _any_of(truth, None if t is None else (t,))
        for axis, (start, stop) in enumerate(zip(own.start, own.stop, strict=True)):
            at = core.start[axis]
            extent.areas[axis][part, at + start : at + stop] += np.count_nonzero(shown, axis=_others(axis))


def _any_of(labels: NDArray[np.generic], ids: tuple[int, ...] | None) -> NDArray[np.bool_]:
    """Where the labels are one of a few ids; everywhere for None."""
    found = np.full(labels.shape, ids is None)
    for identity in ids or ():
        found |= labels == labels.dtype.type(identity)
    return found


def _others(axis: int) -> tuple[int, int]:
    first, second = {0, 1, 2} - {axis}
    return first, second
