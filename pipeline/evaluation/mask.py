"""IoU of a thresholded probability map with a true mask, at many thresholds from one look at the voxels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def mask_ious(
    semantic: NDArray[np.uint8], inside: NDArray[np.bool_], thresholds: Iterable[float]
) -> dict[float, float]:
    """The IoU of ``semantic > int(255 * threshold)`` and ``inside`` for each threshold; 1 where both are empty.

    Args:
        semantic: probabilities, uint8, any shape.
        inside: what is true, same shape.
        thresholds: 0..1.
    """
    true, found = _above(semantic[inside]), _above(semantic)
    return {at: _iou(true, found, int(255 * at)) for at in thresholds}


def _above(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many voxels are above each of the 256 levels; the last entry is how many there are."""
    counts = np.bincount(levels.ravel(), minlength=256)
    return np.append(counts.sum() - np.cumsum(counts), counts.sum())


def _iou(true: NDArray[np.int64], found: NDArray[np.int64], level: int) -> float:
    union = int(found[level] + true[-1] - true[level])
    return float(true[level]) / union if union else 1.0
