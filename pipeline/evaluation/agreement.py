"""How well two partitions of the voxels agree: variation of information and adapted Rand error.

Both count the voxels of true instances only, and take the background of the prediction as one more segment: as
scikit-image's ``variation_of_information(ignore_labels=[0])`` and ``adapted_rand_error`` and CREMI's ``voi`` do.
Variation of information is in bits (Meila 2007, doi:10.1016/j.jmva.2006.11.013; split and merge as in Nunez-Iglesias
et al. 2013, doi:10.1371/journal.pone.0071715); the Rand error is 1 - F of the pairs of different voxels (SNEMI3D;
Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142).
"""

from __future__ import annotations

from operator import mul

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Counts
from pipeline.evaluation.overlaps import Contingency

_AT_ONCE = 2**16


def agreement(table: Contingency) -> dict[str, float]:
    """``voi_split``, ``voi_merge`` (bits, 0 is best) and ``adapted_rand`` (0 best, 1 worst) over all true instances.

    ``voi_split`` is H(prediction | truth): how far true instances fall apart; ``voi_merge`` is H(truth | prediction).
    Without any true instance there is nothing to fall apart: both are 0, and ``adapted_rand`` is 0 if nothing was
    predicted either, and 1 otherwise.
    """
    true = table.truth > 0
    if not true.any():
        return {"voi_split": 0.0, "voi_merge": 0.0, "adapted_rand": float((table.prediction > 0).any())}
    shared = table.voxels[true]
    predicted, whose_prediction = _totals(table.prediction[true], shared)
    actual, whose_truth = _totals(table.truth[true], shared)
    return {
        "voi_split": _conditional_entropy(shared, actual[whose_truth]),
        "voi_merge": _conditional_entropy(shared, predicted[whose_prediction]),
        "adapted_rand": _rand_error(shared, predicted, actual),
    }


def _totals(column: NDArray[np.uint64], voxels: Counts) -> tuple[Counts, NDArray[np.intp]]:
    ids, inverse = np.unique(column, return_inverse=True)
    totals = np.zeros(len(ids), np.int64)
    np.add.at(totals, inverse, voxels)
    return totals, inverse


def _conditional_entropy(shared: Counts, given: Counts) -> float:
    """Bits that say in which cell a voxel lies, when the segment of ``given`` voxels that holds it is known."""
    bits = float(np.sum(shared * (np.log2(given) - np.log2(shared))))
    return max(0.0, bits / int(shared.sum()))


def _rand_error(shared: Counts, predicted: Counts, actual: Counts) -> float:
    together, in_prediction, in_truth = (_ordered_pairs(sizes) for sizes in (shared, predicted, actual))
    # Where every segment is one voxel there are no pairs, hence none wrong.
    return 1 - 2 * together / (in_prediction + in_truth) if in_prediction + in_truth else 0.0


def _ordered_pairs(sizes: Counts) -> int:
    """Pairs of different voxels in one segment, exactly: squares of sizes pass 2^63 in large volumes."""
    total = 0
    for start in range(0, len(sizes), _AT_ONCE):
        part = sizes[start : start + _AT_ONCE].tolist()
        total += sum(map(mul, part, part)) - sum(part)
    return total
