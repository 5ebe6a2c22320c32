"""How good a network is on a labelled volume it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.folding import folded, on_onednn
from pipeline.model.resunet_h import DIVISOR, ResUNetH
from pipeline.training.config import TrainConfig
from pipeline.training.volumes import LabelledVolume

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(4, 20))


def validate(network: ResUNetH, volume: LabelledVolume, config: TrainConfig) -> dict[str, Any]:
    """IoU of the mask at 0.5 and at the best of `THRESHOLDS`, over the whole volume."""
    mask = probabilities(network, volume, config)[0]
    truth = volume.instances[:, : mask.shape[1], : mask.shape[2]] > 0
    scores = {threshold: iou(mask > threshold, truth) for threshold in THRESHOLDS}
    best = max(scores, key=lambda threshold: scores[threshold])
    return {"iou": round(scores[0.5], 4), "best_iou": round(scores[best], 4), "best_threshold": best}


def probabilities(network: ResUNetH, volume: LabelledVolume, config: TrainConfig) -> NDArray[np.float32]:
    """(2, z, y, x) in one pass; height and width are cut to a multiple of 16. Computed as inference does."""
    height, width = (size // DIVISOR * DIVISOR for size in volume.raw.shape[1:])
    raw = config.normalisation.apply(volume.raw[:, :height, :width], volume.statistics)
    ready = on_onednn(folded(network))
    with torch.inference_mode():
        output = ready(torch.from_numpy(raw)[None, None].to(memory_format=torch.channels_last_3d))[0]
    result: NDArray[np.float32] = output.numpy()
    return result


def iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = int((prediction | truth).sum())
    return float((prediction & truth).sum()) / union if union else 1.0
