"""The post-processing a trained network is shipped with, chosen on volumes it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.resunet_h import ResUNetH
from pipeline.model.spec import Thresholds
from pipeline.training.config import TrainConfig
from pipeline.training.validation import iou, probabilities
from pipeline.training.volumes import LabelledVolume

SEMANTIC = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
BOUNDARY = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def tuned(network: ResUNetH, volumes: Sequence[LabelledVolume], config: TrainConfig) -> Thresholds:
    """The thresholds with the best mean score over the volumes; each volume counts the same.

    First the mask, by its IoU; then, with that mask, the seeds, by the F1 score of the instances at IoU 0.5 and 0.75.
    """
    maps = [probabilities(network, volume, config) for volume in volumes]
    truths = [volume.instances[:, : one.shape[2], : one.shape[3]] for volume, one in zip(volumes, maps, strict=True)]
    semantic = max(SEMANTIC, key=lambda t: sum(iou(p[0] > t, true > 0) for p, true in zip(maps, truths, strict=True)))

    def score(chosen: Thresholds) -> float:
        made = [segmented(p, chosen, volume.voxel_size_nm) for p, volume in zip(maps, volumes, strict=True)]
        return sum(f1(one, true, at) for one, true in zip(made, truths, strict=True) for at in (0.5, 0.75))

    seeds = product((t for t in SEMANTIC if t >= semantic), BOUNDARY)
    choices = [Thresholds(semantic=semantic, seed_semantic=s, seed_boundary=b) for s, b in seeds]
    return max(choices, key=score)


def segmented(
    maps: NDArray[np.float32], chosen: Thresholds, voxel_size_nm: tuple[float, float, float]
) -> NDArray[np.uint32]:
    """Probabilities (2, z, y, x) to instances: 6-connected seeds, grown through the mask, small ones dropped."""
    from pipeline.ops.grow import grow  # these need more packages than training does
    from pipeline.ops.label import label, seeds

    found = seeds(maps[0], maps[1], int(255 * chosen.seed_semantic), int(255 * chosen.seed_boundary))
    z, y, x = (int(chosen.grow_nm / size + 1e-6) for size in voxel_size_nm)
    grown: NDArray[np.uint32] = grow(label(found, 6)[0], maps[0] > chosen.semantic, (z, y, x))
    volumes_um3 = np.bincount(grown.ravel()) * (math.prod(voxel_size_nm) / 1e9)
    return np.where(volumes_um3[grown] >= chosen.minimum_um3, grown, np.uint32(0))


def f1(prediction: NDArray[Any], truth: NDArray[Any], at: float) -> float:
    """F1 score of instances; a hit is a pair with IoU of at least `at`, which above 0.5 is one to one."""
    predicted, true = np.bincount(prediction.ravel()), np.bincount(truth.ravel())
    both = (prediction > 0) & (truth > 0)
    pairs, shared = np.unique(prediction[both].astype(np.int64) * len(true) + truth[both], return_counts=True)
    overlap = shared / (predicted[pairs // len(true)] + true[pairs % len(true)] - shared)
    objects = int((predicted[1:] > 0).sum() + (true[1:] > 0).sum())
    return 2.0 * float((overlap >= at).sum()) / objects if objects else 1.0
