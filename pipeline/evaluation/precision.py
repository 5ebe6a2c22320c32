"""Average precision of instances, as the tool of the MitoEM challenge defines it (ygCoconut/mAP_3Dvolume).

Wei et al. 2020, doi:10.1007/978-3-030-59722-1_7. Predictions are ranked by their number of voxels. In a range of sizes
``(low, high]`` voxels, each is compared with the true instance *of that size* with which its IoU is best, or, when it
touches none of that size, with the best of all. At IoU >= threshold it is a hit; a hit on a true instance out of the
range counts for nothing; a prediction that is no hit is a false positive when its own size lies in the range, and else
counts for nothing. One true instance may be hit more than once (impossible above IoU 0.5). Precision is made to fall
with recall and averaged over COCO's 101 recalls.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Counts, Ids
from pipeline.evaluation.overlaps import Contingency

NO_TRUTH = -1.0  # the reference's score of a range of sizes that holds no true instance
THRESHOLDS = tuple(k / 20 for k in range(10, 20))  # .50 to .95; every one the double nearest to its decimal
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Instances of more than ``low`` and at most ``high`` voxels."""

    low: float = 0.0
    high: float = inf

    def holds(self, voxels: Counts) -> NDArray[np.bool_]:
        """Which of these sizes lie in the range."""
        return (voxels > self.low) & (voxels <= self.high)


ALL = SizeRange()


@dataclass(frozen=True)
class Matches:
    """The true instance that each predicted one is compared with; 0 where it touches none.

    Attributes:
        truth: uint64 ids.
        truth_voxels: int64.
        iou: float64; counts are exact and the division is correctly rounded, so an IoU of exactly 3/4 is 0.75.
    """

    truth: Ids
    truth_voxels: Counts
    iou: NDArray[np.float64]


class Ranked:
    """Predicted and true instances of a table with their overlaps, ready to be matched.

    Attributes:
        ids, voxels: of the predictions, in the order in which they are ranked: by voxels falling, then by id rising
            (the reference leaves the order of equal sizes to chance).
        true_ids, true_voxels: of the true instances, by id rising.
    """

    def __init__(self, table: Contingency) -> None:
        ids, voxels = table.prediction_sizes()
        self.true_ids, self.true_voxels = table.truth_sizes()
        self._order = np.argsort(-voxels, kind="stable")  # ids rise, so ties stay in their order
        self.ids, self.voxels = ids[self._order], voxels[self._order]
        both = (table.prediction > 0) & (table.truth > 0)
        # Rows of the table are sorted by prediction, then truth; so are these.
        self._p = np.searchsorted(ids, table.prediction[both])
        self._t = np.searchsorted(self.true_ids, table.truth[both])
        shared = table.voxels[both]
        self._iou = shared / (voxels[self._p] + self.true_voxels[self._t] - shared)

    def matched(self, sizes: SizeRange = ALL) -> Matches:
        """The true instance each prediction, in the order of ``ids``, is compared with; of equal IoU the lowest id."""
        inside = sizes.holds(self.true_voxels)[self._t]
        best_inside, best = (np.full(len(self.ids), -1.0) for _ in range(2))
        np.maximum.at(best_inside, self._p[inside], self._iou[inside])
        np.maximum.at(best, self._p, self._iou)
        any_inside = best_inside >= 0
        wanted = np.where(any_inside, best_inside, best)
        candidates = np.flatnonzero((self._iou == wanted[self._p]) & (inside | ~any_inside[self._p]))
        predictions, first = np.unique(self._p[candidates], return_index=True)
        rows = candidates[first]
        place = np.empty(len(self.ids), np.intp)
        place[self._order] = np.arange(len(self.ids))
        at = place[predictions]
        count = len(self.ids)
        found = Matches(np.zeros(count, np.uint64), np.zeros(count, np.int64), np.zeros(count))
        found.truth[at] = self.true_ids[self._t[rows]]
        found.truth_voxels[at] = self.true_voxels[self._t[rows]]
        found.iou[at] = self._iou[rows]
        return found

    def best_of_truth(self) -> tuple[Ids, NDArray[np.float64]]:
        """For each true instance the prediction with which its IoU is best (of equal ones the lowest id), and the IoU.

        Both are 0 where no prediction touches it.
        """
        best = np.zeros(len(self.true_ids))
        np.maximum.at(best, self._t, self._iou)
        candidates = np.flatnonzero(self._iou == best[self._t])
        truths, first = np.unique(self._t[candidates], return_index=True)
        rising = np.empty(len(self.ids), np.uint64)
        rising[self._order] = self.ids
        ids = np.zeros(len(self.true_ids), np.uint64)
        ids[truths] = rising[self._p[candidates[first]]]
        return ids, best


def average_precision(table: Contingency, threshold: float) -> float:
    """Average precision of the instances of all sizes at an IoU threshold (a hit has IoU >= threshold), from 0 to 1.

    Where there is no true instance the reference gives -1; here it is 1 if nothing was predicted either, and 0
    otherwise. Without predictions it is 0.
    """
    return mean_precision(Ranked(table), (threshold,))


def mean_precision(ranked: Ranked, thresholds: tuple[float, ...], sizes: SizeRange = ALL) -> float:
    """The mean average precision over thresholds in a range of sizes.

    -1 where a range holds no true instance, as the reference has it; but of all sizes see :func:`average_precision`.
    """
    positives = int(np.count_nonzero(sizes.holds(ranked.true_voxels)))
    if positives == 0:
        return float(not len(ranked.ids)) if sizes == ALL else NO_TRUTH
    matches = ranked.matched(sizes)
    curves = [_interpolated(ranked, matches, sizes, threshold, positives) for threshold in thresholds]
    return float(np.mean(curves))


def best_iou(table: Contingency) -> NDArray[np.float64]:
    """For each predicted instance, in rising order of ids, the IoU with the true instance that fits it best, or 0."""
    ranked = Ranked(table)
    return ranked.matched().iou[np.argsort(ranked.ids)]


def _interpolated(
    ranked: Ranked, matches: Matches, sizes: SizeRange, threshold: float, positives: int
) -> NDArray[np.float64]:
    """The precision at COCO's 101 recalls, 0 beyond the largest recall reached."""
    hits = matches.iou >= threshold
    true = np.cumsum(hits & sizes.holds(matches.truth_voxels), dtype=np.float64)
    false = np.cumsum(~hits & sizes.holds(ranked.voxels), dtype=np.float64)
    recall = true / positives
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    at: NDArray[np.float64] = np.append(precision, 0.0)[place]
    return at
