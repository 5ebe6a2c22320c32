"""Intersection over union of class maps: each id is a class of tissue, not an instance."""

from __future__ import annotations

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.overlaps import Contingency

MOST_CLASSES = 256


def class_scores(table: Contingency) -> dict[str, float]:
    """``miou`` and ``iou_class_K`` for each class K that either map holds, 0 (the background) too.

    ``miou`` is the mean over all of these.

    Raises:
        BadInput: there are more than 256 classes.
    """
    classes = np.union1d(table.prediction, table.truth)
    if len(classes) > MOST_CLASSES:
        raise BadInput(
            f"--classes with {len(classes)} different values",
            f"class maps hold at most {MOST_CLASSES} classes",
            "there is one score a class",
            "Leave --classes away to score instances.",
        )
    found = {f"iou_class_{int(value)}": _iou(table, value) for value in classes}
    return {"miou": float(np.mean(list(found.values()))), **found}


def _iou(table: Contingency, value: np.uint64) -> float:
    predicted, true = table.prediction == value, table.truth == value
    return int(table.voxels[predicted & true].sum()) / int(table.voxels[predicted | true].sum())
