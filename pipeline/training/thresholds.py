"""The post-processing a trained network is shipped with, chosen on volumes it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipeline.model.spec import Thresholds
from pipeline.training.validation import Maps, can_label, mean_score, scores
from pipeline.training.volumes import LabelledVolume

SEMANTIC = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
BOUNDARY = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUICK = (0.3, 0.5, 0.8)
"""Boundary thresholds tried on the way; all of `SEMANTIC` and `BOUNDARY` are at the end."""


def tuned(maps: Sequence[Maps], volumes: Sequence[LabelledVolume], quick: bool = False) -> Thresholds:
    """The thresholds with the best mean score over the volumes; each volume counts the same.

    First the mask, by its IoU; then, with that mask, the seeds, by IoU, AP-50 and AP-75 of the instances.

    Args:
        maps: predictions of the volumes.
        volumes: their truth.
        quick: try few seeds: on the way, rather than at the end.
    """
    ious = [_ious(one, volume) for one, volume in zip(maps, volumes, strict=True)]
    semantic = max(SEMANTIC, key=lambda at: sum(one[at] for one in ious))
    if not can_label():
        return Thresholds(semantic=semantic, seed_semantic=semantic)
    above = (semantic,) if quick else tuple(at for at in SEMANTIC if at >= semantic)
    choices = [
        Thresholds(semantic=semantic, seed_semantic=s, seed_boundary=b)
        for s, b in product(above, QUICK if quick else BOUNDARY)
    ]
    return max(choices, key=lambda chosen: _score(maps, volumes, chosen))


def _score(maps: Sequence[Maps], volumes: Sequence[LabelledVolume], chosen: Thresholds) -> float:
    found = [scores(one, volume, chosen) for one, volume in zip(maps, volumes, strict=True)]
    return mean_score(found) + float(np.mean([one["ap50"] for one in found])) / 2


def _ious(maps: Maps, volume: LabelledVolume) -> dict[float, float]:
    """IoU of the mask at every threshold, from two histograms."""
    true = _above(maps.semantic[volume.instances > 0])
    found = _above(maps.semantic)
    return {at: _iou(true, found, int(255 * at)) for at in SEMANTIC}


def _above(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many voxels are above each of the 256 levels; the last entry is how many there are."""
    counts = np.bincount(levels.ravel(), minlength=256)
    return np.append(counts.sum() - np.cumsum(counts), counts.sum())


def _iou(true: NDArray[np.int64], found: NDArray[np.int64], level: int) -> float:
    union = int(found[level] + true[-1] - true[level])
    return float(true[level]) / union if union else 1.0
