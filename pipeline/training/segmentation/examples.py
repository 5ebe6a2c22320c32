"""What the sheet of examples shows of a validation volume."""

from __future__ import annotations

import numpy as np

from pipeline.model.spec import Thresholds
from pipeline.training.record.examples import ValidationExample
from pipeline.training.segmentation.validation import PredictedMaps, can_label, segmented
from pipeline.training.segmentation.volumes import LabelledVolume

_SIDE = 320
"""Voxels in the plane, at most."""


def example_of(volume: LabelledVolume, maps: PredictedMaps, chosen: Thresholds) -> ValidationExample:
    """The middle slices of a validation volume, cut in the plane to where most foreground is."""
    z, y, x = (slice(*span) for span in _telling_box(volume))
    made = segmented(maps, chosen, volume.voxel_size_nm) if can_label() else np.zeros(volume.raw.shape, np.uint32)
    return ValidationExample(
        name=volume.name,
        raw=volume.raw[z, y, x],
        truth=volume.instances[z, y, x],
        semantic=maps.semantic[z, y, x],
        boundary=maps.boundary[z, y, x],
        instances=made[z, y, x],
        voxel_size_nm=volume.voxel_size_nm,
    )


def _telling_box(volume: LabelledVolume) -> list[tuple[int, int]]:
    depth = volume.raw.shape[0]
    spans = [(max(0, depth // 2 - 1), min(depth, depth // 2 + 2))]
    middle = volume.instances[depth // 2] > 0
    for axis, size in enumerate(volume.raw.shape[1:]):
        along = middle.sum(axis=1 - axis)
        side = min(_SIDE, size)
        inside = np.convolve(along, np.ones(side, np.int64), "valid")
        start = int(inside.argmax())
        spans.append((start, start + side))
    return spans
