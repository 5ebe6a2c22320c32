"""Which predicted and true instances share how many voxels: the table from which every score follows.

It adds up over blocks, so no volume is ever held whole. Counts are integers and rows are sorted, so the scores do not
depend on how the volume was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Counts, Ids

_BATCH_ROWS = 2**16  # tables of blocks are gathered to this many rows before they are sorted together
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Contingency:
    """How many voxels each pair of a predicted and a true id shares; three columns of equal length.

    Attributes:
        prediction, truth: uint64, 0 the background; each pair once, sorted by prediction, then truth.
        voxels: int64, at least 1.
    """

    prediction: Ids
    truth: Ids
    voxels: Counts

    def __len__(self) -> int:
        return len(self.voxels)

    @classmethod
    def of(cls, prediction: NDArray[Any], truth: NDArray[Any]) -> Contingency:
        """The table of two label arrays of one shape (any integer or bool dtype, no negative values)."""
        p, t = np.ravel(prediction), np.ravel(truth)
        if not len(p):
            return cls.merged(())
        # Labels come in runs along x: some twenty times fewer runs than voxels have to be sorted.
        changes = np.empty(len(p), np.bool_)
        changes[0] = True
        np.not_equal(p[1:], p[:-1], out=changes[1:])
        changes[1:] |= t[1:] != t[:-1]
        starts = np.flatnonzero(changes)
        lengths = np.diff(starts, append=len(p))
        return _summed(p[starts].astype(np.uint64), t[starts].astype(np.uint64), lengths.astype(np.int64))

    @classmethod
    def merged(cls, tables: Iterable[Contingency]) -> Contingency:
        """The table of several disjoint parts of a volume together, in any order.

        Tables of like length are merged with each other, as in a merge sort: n rows cost n log n however many tables
        they come in, and at any time about three times the rows of the result are held.
        """
        levels: list[Contingency] = []
        batch: list[Contingency] = []
        rows = 0
        for table in tables:
            batch.append(table)
            rows += len(table)
            if rows >= _BATCH_ROWS:
                levels.append(_joined(batch))
                batch, rows = [], 0
                while len(levels) > 1 and len(levels[-2]) <= 2 * len(levels[-1]):
                    levels[-2:] = [_joined(levels[-2:])]
        return _joined([*levels, *batch])

    def prediction_sizes(self) -> tuple[Ids, Counts]:
        """Ids of all predicted instances in rising order, and their voxels."""
        return _sizes(self.prediction, self.voxels)

    def truth_sizes(self) -> tuple[Ids, Counts]:
        """Ids of all true instances in rising order, and their voxels."""
        return _sizes(self.truth, self.voxels)

    def without_small_truth(self, voxels: int) -> Contingency:
        """The table with true instances of fewer than ``voxels`` voxels made background."""
        ids, sizes = self.truth_sizes()
        small = ids[sizes < voxels]
        if not len(small):
            return self
        truth = np.where(np.isin(self.truth, small), np.uint64(0), self.truth)
        return _summed(self.prediction, truth, self.voxels)

    def without_small_predictions(self, voxels: int) -> Contingency:
        """The table with predicted instances of fewer than ``voxels`` voxels made background."""
        ids, sizes = self.prediction_sizes()
        small = ids[sizes < voxels]
        if not len(small):
            return self
        prediction = np.where(np.isin(self.prediction, small), np.uint64(0), self.prediction)
        return _summed(prediction, self.truth, self.voxels)

    def without_background(self) -> Contingency:
        """The table without the voxels that are background in both."""
        kept = (self.prediction > 0) | (self.truth > 0)
        return replace(self, prediction=self.prediction[kept], truth=self.truth[kept], voxels=self.voxels[kept])

    def with_background(self, total: int) -> Contingency:
        """The table of ``total`` voxels, those that are in no row being background in both."""
        rest = total - int(self.voxels.sum())
        if not rest:
            return self
        zero = np.zeros(1, np.uint64)
        return _joined([self, Contingency(zero, zero, np.array([rest], np.int64))])


def foreground(table: Contingency) -> dict[str, float]:
    """``iou`` and ``dice`` of all voxels above 0, whatever their ids; 1 where there are none in either."""
    predicted, true = table.prediction > 0, table.truth > 0
    both = int(table.voxels[predicted & true].sum())
    either = int(table.voxels[predicted | true].sum())
    if either == 0:
        return {"iou": 1.0, "dice": 1.0}
    return {"iou": both / either, "dice": 2 * both / (either + both)}


def _joined(tables: Sequence[Contingency]) -> Contingency:
    if len(tables) == 1:
        return tables[0]
    parts = [Contingency(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)), *tables]
    return _summed(
        np.concatenate([part.prediction for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.voxels for part in parts]),
    )


def _summed(prediction: Ids, truth: Ids, voxels: Counts) -> Contingency:
    order = _order(prediction, truth)
    prediction, truth, voxels = prediction[order], truth[order], voxels[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (prediction[1:] != prediction[:-1]) | (truth[1:] != truth[:-1])
    starts = np.flatnonzero(fresh)
    total = np.add.reduceat(voxels, starts) if len(starts) else voxels
    return Contingency(prediction[starts], truth[starts], total)


def _order(prediction: Ids, truth: Ids) -> NDArray[np.intp]:
    if max(prediction.max(initial=0), truth.max(initial=0)) >> _HALF:
        return np.lexsort((truth, prediction))
    # Ids below 2^32 sort as one number, in half the time of two columns.
    return np.argsort((prediction << _HALF) | truth)


def _sizes(column: Ids, voxels: Counts) -> tuple[Ids, Counts]:
    ids, inverse = np.unique(column[column > 0], return_inverse=True)
    sizes = np.zeros(len(ids), np.int64)
    np.add.at(sizes, inverse, voxels[column > 0])
    return ids, sizes
