"""The post-processing a trained network is shipped with, chosen on volumes it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from pipeline.evaluation.mask import mask_ious
from pipeline.model.spec import Thresholds
from pipeline.training.segmentation.validation import PredictedMaps, can_label, mean_score, scores
from pipeline.training.segmentation.volumes import LabelledVolume

SEMANTIC = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
BOUNDARY = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUICK = (0.3, 0.5, 0.8)
"""Boundary thresholds tried on the way; all of `SEMANTIC` and `BOUNDARY` are at the end."""


def tuned(maps: Sequence[PredictedMaps], volumes: Sequence[LabelledVolume], quick: bool = False) -> Thresholds:
    """The thresholds with the best mean score over the volumes; each volume counts the same.

    First the mask, by its IoU; then, with that mask, the seeds, by IoU, AP-50 and AP-75 of the instances.

    Args:
        maps: predictions of the volumes.
        volumes: their truth.
        quick: try few seeds: on the way, rather than at the end.
    """
    ious = [mask_ious(one.semantic, volume.instances > 0, SEMANTIC) for one, volume in zip(maps, volumes, strict=True)]
    semantic = max(SEMANTIC, key=lambda at: sum(one[at] for one in ious))
    if not can_label():
        return Thresholds(semantic=semantic, seed_semantic=semantic)
    above = (semantic,) if quick else tuple(at for at in SEMANTIC if at >= semantic)
    choices = [
        Thresholds(semantic=semantic, seed_semantic=s, seed_boundary=b)
        for s, b in product(above, QUICK if quick else BOUNDARY)
    ]
    return max(choices, key=lambda chosen: _score(maps, volumes, chosen))


def _score(maps: Sequence[PredictedMaps], volumes: Sequence[LabelledVolume], chosen: Thresholds) -> float:
    found = [scores(one, volume, chosen) for one, volume in zip(maps, volumes, strict=True)]
    return mean_score(found) + float(np.mean([one["ap50"] for one in found])) / 2
