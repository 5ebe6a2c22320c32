"""How good a network is on labelled volumes it was not trained on, by the pipeline's own prediction and instances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import BadInput
from pipeline.evaluation import Contingency, average_precision, foreground
from pipeline.geometry import Box, Triple, vec3
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.model.folding import folded, on_onednn
from pipeline.model.spec import Thresholds
from pipeline.predict.op import PredictOp
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.start import multiple_of
from pipeline.training.segmentation.volumes import LabelledVolume

Map = NDArray[np.uint8]


class PredictedMaps(NamedTuple):
    """Predicted probabilities of one volume, uint8 (z, y, x)."""

    semantic: Map
    boundary: Map


class _Trained:
    """A network as the prediction op takes it."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        ready = folded(network).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._network, self._device = on_onednn(ready) if device.type == "cpu" else ready, device

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            placed = torch.from_numpy(patches).to(self._device).contiguous(memory_format=torch.channels_last_3d)
            result: NDArray[np.float32] = self._network(placed).float().cpu().contiguous().numpy()
        return result


def predicted(network: nn.Module, volume: LabelledVolume, config: TrainConfig, device: torch.device) -> PredictedMaps:
    """The maps that `teramito run` would store for this volume at the model's voxel size.

    Raises:
        BadInput: the volume is smaller than a patch can be.
    """
    op = predict_op(volume, config, multiple_of(network, config.architecture))
    box = Box.of_shape(op.extent)
    semantic, boundary, _ = op(volume.raw, box, box, partial(_looked_up, volume.table), _Trained(network, device))
    return PredictedMaps(semantic, boundary)


def _looked_up(table: NDArray[np.float32], grey: Map) -> NDArray[np.float32]:
    values: NDArray[np.float32] = table[grey]
    return values


def require_scorable(volumes: Sequence[LabelledVolume], config: TrainConfig, multiple: Triple) -> None:
    """Refuse validation volumes that are smaller than the least patch of the network, `multiple` (z, y, x).

    Raises:
        BadInput: there are such volumes.
    """
    for volume in volumes:
        predict_op(volume, config, multiple)


def predict_op(volume: LabelledVolume, config: TrainConfig, multiple: Triple) -> PredictOp:
    """The prediction of a validation volume: patches of the configuration, smaller where the volume is.

    Raises:
        BadInput: the volume is smaller than the least patch of the network, `multiple` (z, y, x).
    """
    extent = vec3(volume.raw.shape)
    patch = (extent // multiple * multiple).min(config.patch)
    if min(patch) == 0:
        raise BadInput(
            f"validation volume {volume.name} of {extent}",
            f"it is at least {multiple}, z y x",
            "the network takes patches of multiples of that",
            "Give a larger volume.",
        )
    overlap = vec3(min(o, p // 2) if p < e else 0 for o, p, e in zip(config.overlap, patch, extent, strict=True))
    return PredictOp(extent, vec3((1, 1, 1)), patch, overlap, "bump")


def segmented(maps: PredictedMaps, chosen: Thresholds, voxel_size_nm: tuple[float, float, float]) -> NDArray[np.uint64]:
    """Maps to instances as the default preset does: 6-connected seeds, grown through the mask, small ones dropped."""
    settings = InstanceSettings(
        seed_above=chosen.seed_semantic,
        boundary_below=chosen.seed_boundary,
        mask_above=chosen.semantic,
        grow_nm=chosen.grow_nm,
        minimum_um3=chosen.minimum_um3,
    )
    return whole_instances(*maps, instance_plan(settings, voxel_size_nm, None))


def can_label() -> bool:
    """Whether instances can be made here: a machine with torch and numpy alone trains, and scores the mask only."""
    return find_spec("cc3d") is not None or find_spec("scipy") is not None


def scores(maps: PredictedMaps, volume: LabelledVolume, chosen: Thresholds) -> dict[str, Any]:
    """`iou`, `dice` of the mask and, where instances can be made, `ap50`, `ap75` and their number.

    The same numbers as `teramito evaluate` prints for the segmentation; without instances iou and dice are the mask's.
    """
    if not can_label():
        mask = maps.semantic > int(255 * chosen.semantic)
        return _rounded(foreground(Contingency.of(mask, volume.instances > 0)))
    table = Contingency.of(segmented(maps, chosen, volume.voxel_size_nm), volume.instances)
    ap = {f"ap{int(100 * at)}": average_precision(table, at) for at in (0.5, 0.75)}
    return _rounded({**foreground(table), **ap}) | {"instances": len(table.prediction_sizes()[0])}


def mean_score(found: Sequence[dict[str, Any]]) -> float:
    """What the best weights are chosen by: the mean over the volumes of the mean of IoU and AP-75."""
    return float(np.mean([(one["iou"] + one.get("ap75", one["iou"])) / 2 for one in found]))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
