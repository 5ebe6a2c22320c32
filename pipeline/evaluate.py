"""How good a segmentation is, against a ground truth: foreground IoU and Dice, and average precision of instances.

The average precision is the one of the MitoEM challenge (Wei et al. 2020, doi:10.1007/978-3-030-59722-1_7; evaluator
ygCoconut/mAP_3Dvolume) over instances of all sizes: predictions ranked by their number of voxels, hits by IoU with the
best truth, precision interpolated at the 101 recalls of COCO. Everything follows from one table of overlaps, which
adds up over blocks: no volume is ever held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid

if TYPE_CHECKING:
    from pipeline.volume import Volume  # training scores arrays where no reader of volumes is installed

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]

_BLOCK: Vec3 = (128, 256, 256)  # two uint64 blocks of 64 MiB
_RECALLS = np.linspace(0.0, 1.0, 101)


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

    @classmethod
    def of(cls, prediction: NDArray[Any], truth: NDArray[Any]) -> Contingency:
        """The table of two label arrays of one shape (any integer or bool dtype, no negative values)."""
        p, t = np.ravel(prediction), np.ravel(truth)
        if not len(p):
            return cls.merged(())
        # Labels come in runs along x: some twenty times fewer runs than voxels have to be sorted.
        starts = np.flatnonzero(np.concatenate([[True], (p[1:] != p[:-1]) | (t[1:] != t[:-1])]))
        lengths = np.diff(starts, append=len(p))
        return _summed(p[starts].astype(np.uint64), t[starts].astype(np.uint64), lengths.astype(np.int64))

    @classmethod
    def merged(cls, tables: Iterable[Contingency]) -> Contingency:
        """The table of several disjoint parts of a volume together, in any order."""
        parts = [cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)), *tables]
        return _summed(
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.voxels for part in parts]),
        )

    def prediction_sizes(self) -> tuple[Ids, Counts]:
        """Ids of all predicted instances in rising order, and their voxels."""
        return _sizes(self.prediction, self.voxels)

    def truth_sizes(self) -> tuple[Ids, Counts]:
        """Ids of all true instances in rising order, and their voxels."""
        return _sizes(self.truth, self.voxels)


def evaluate(
    prediction: Volume,
    truth: Volume,
    block: Vec3 = _BLOCK,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Compare a segmentation with the truth, block by block.

    Args:
        prediction, truth: labels or masks of one shape, 0 the background; any integer dtype or bool.
        block: voxels z, y, x held at once; it has no influence on the result.
        progress: called with (blocks done, blocks in all) after each block.

    Returns:
        ``iou``, ``dice``: of everything above 0; 1 where both are empty.
        ``ap50``, ``ap75``: see :func:`average_precision`.
        ``instances_predicted``, ``instances_truth``: numbers of ids above 0.

    Raises:
        BadInput: the shapes differ, or a volume does not hold labels (float dtype, or negative values).
    """
    _require_comparable(prediction, truth)
    table = contingency(prediction, truth, block, progress)
    return {
        **foreground(table),
        "ap50": average_precision(table, 0.5),
        "ap75": average_precision(table, 0.75),
        "instances_predicted": len(table.prediction_sizes()[0]),
        "instances_truth": len(table.truth_sizes()[0]),
    }


def contingency(
    prediction: Volume,
    truth: Volume,
    block: Vec3 = _BLOCK,
    progress: Callable[[int, int], None] | None = None,
) -> Contingency:
    """The table of overlaps of two volumes of one shape, gathered block by block."""
    grid = BlockGrid(prediction.shape, block)
    table = Contingency.merged(())
    for done, part in enumerate(grid, 1):
        labels = [_labels(volume, volume.read(part.core)) for volume in (prediction, truth)]
        table = Contingency.merged((table, Contingency.of(*labels)))
        if progress is not None:
            progress(done, len(grid))
    return table


def foreground(table: Contingency) -> dict[str, float]:
    """``iou`` and ``dice`` of all voxels above 0, whatever their ids; 1 where there are none in either."""
    predicted, true = table.prediction > 0, table.truth > 0
    both = int(table.voxels[predicted & true].sum())
    either = int(table.voxels[predicted | true].sum())
    if either == 0:
        return {"iou": 1.0, "dice": 1.0}
    return {"iou": both / either, "dice": 2 * both / (either + both)}


def average_precision(table: Contingency, threshold: float) -> float:
    """Average precision of the instances at an IoU threshold (a hit has IoU >= threshold), from 0 to 1.

    A prediction's score is its number of voxels; ties go to the lower id. Where there is no true instance the
    reference gives -1; here it is 1 if nothing was predicted either, and 0 otherwise. Without predictions it is 0.
    """
    positives = len(table.truth_sizes()[0])
    ids, voxels = table.prediction_sizes()
    if positives == 0 or len(ids) == 0:
        return float(positives == 0 and len(ids) == 0)
    ranked = np.argsort(-voxels, kind="stable")  # ids rise, so ties stay in their order
    return _interpolated_precision(best_iou(table)[ranked] >= threshold, positives)


def best_iou(table: Contingency) -> NDArray[np.float64]:
    """For each predicted instance, in rising order of ids, the IoU with the true instance that fits it best, or 0.

    Counts are exact integers and the division is correctly rounded, so an IoU of exactly 3/4 is 0.75.
    """
    predicted, predicted_voxels = table.prediction_sizes()
    true, true_voxels = table.truth_sizes()
    overlap = (table.prediction > 0) & (table.truth > 0)
    p = np.searchsorted(predicted, table.prediction[overlap])
    t = np.searchsorted(true, table.truth[overlap])
    shared = table.voxels[overlap]
    best = np.zeros(len(predicted))
    np.maximum.at(best, p, shared / (predicted_voxels[p] + true_voxels[t] - shared))
    return best


def _interpolated_precision(hits: NDArray[np.bool_], positives: int) -> float:
    """The mean of the precision at COCO's 101 recalls, 0 beyond the largest recall reached."""
    true = np.cumsum(hits)
    recall = true / positives
    precision = true / (np.arange(1, len(hits) + 1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[place].mean())


def _summed(prediction: Ids, truth: Ids, voxels: Counts) -> Contingency:
    order = np.lexsort((truth, prediction))
    prediction, truth, voxels = prediction[order], truth[order], voxels[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (prediction[1:] != prediction[:-1]) | (truth[1:] != truth[:-1])
    starts = np.flatnonzero(fresh)
    total = np.add.reduceat(voxels, starts) if len(starts) else voxels
    return Contingency(prediction[starts], truth[starts], total)


def _sizes(column: Ids, voxels: Counts) -> tuple[Ids, Counts]:
    ids, inverse = np.unique(column[column > 0], return_inverse=True)
    sizes = np.zeros(len(ids), np.int64)
    np.add.at(sizes, inverse, voxels[column > 0])
    return ids, sizes


def _require_comparable(prediction: Volume, truth: Volume) -> None:
    problems = [_not_labels(volume, f"it holds {volume.dtype}") for volume in (prediction, truth) if _is_float(volume)]
    if prediction.shape != truth.shape:
        problems.append(
            BadInput(
                f"prediction {prediction} of shape {prediction.shape} and truth {truth} of shape {truth.shape}",
                "both must have one shape",
                "they are compared voxel by voxel",
                "Crop the larger one, or compare at the same resolution.",
            )
        )
    raise_all(problems)


def _is_float(volume: Volume) -> bool:
    return np.dtype(volume.dtype).kind not in "bui"


def _labels(volume: Volume, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "i" and array.min(initial=0) < 0:
        raise _not_labels(volume, f"it holds the value {array.min()}")
    return array


def _not_labels(volume: Volume, why: str) -> BadInput:
    return BadInput(
        str(volume),
        "labels must be whole numbers, 0 for the background and positive for instances",
        why,
        "Threshold a probability map and label it first.",
    )
