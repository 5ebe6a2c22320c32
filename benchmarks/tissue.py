"""The real volumes below ``$TERAMITO_DATA``, reduced to about 10 nm, by the slices that a benchmark uses of them."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.model.device import device_of
from pipeline.model.load import trained_network
from pipeline.model.spec import Thresholds, load_spec, spec_path
from pipeline.training.segmentation.config import PhantomSource, Source, TrainConfig, VolumeSource
from pipeline.training.segmentation.validation import PredictedMaps, predicted
from pipeline.training.segmentation.volumes import LabelledVolume

Slices = tuple[int, int]
"""First slice, and the one after the last."""


def lucchi(slices: Slices) -> VolumeSource:
    """Mouse hippocampus, 5 nm, as 10x10x10 nm."""
    return _source("lucchi/train", slices, (2, 2, 2), (5.0, 5.0, 5.0))


def fly(slices: Slices) -> VolumeSource:
    """Ventral nerve cord of the fly, 50x4.6x4.6 nm, as 50x9.2x9.2 nm.

    Instances are the 6-connected pieces of the mitochondria among its classes: the files of mitochondria and of
    instances agree with that, but are empty in slices 1, 7 and 18.
    """
    raw, classes = (f"${{TERAMITO_DATA}}/drosophila_vnc/stack1_{kind}.tif" for kind in ("raw", "classes"))
    return VolumeSource(
        raw=raw,
        instances=classes,
        mask_class=191,
        mask_connectivity=6,
        z_range=slices,
        downsample=(1, 2, 2),
        voxel_size_nm=(50.0, 4.6, 4.6),
    )


def mouse(slices: Slices, crop: str = "") -> VolumeSource:
    """Mouse tissue by SBEM, 40x10x10 nm, as it is; ``crop`` is ``[z0:z1,y0:y1,x0:x1]`` of the file."""
    return _source("sbem_mouse/train", slices, (1, 1, 1), (40.0, 10.0, 10.0), crop)


def require_data() -> None:
    """Raise BadInput where ``$TERAMITO_DATA`` is not set."""
    if not os.environ.get("TERAMITO_DATA"):
        raise BadInput(
            "TERAMITO_DATA", "it names the folder of the real EM volumes", nearest="export TERAMITO_DATA=..."
        )


def predicted_by(
    model: str, volumes: list[LabelledVolume], config: TrainConfig
) -> tuple[list[PredictedMaps], Thresholds]:
    """Maps of each volume by a model (a name or a specification), and the thresholds that it recommends.

    Patches are those of the configuration, the same for every model compared.
    """
    path = spec_path(model)
    spec = load_spec(path)
    network = trained_network(path, spec)
    return [predicted(network, volume, config, device_of(config.device)) for volume in volumes], spec.thresholds


def named(source: Source) -> str:
    """A volume and its slices, without where it lies."""
    if isinstance(source, PhantomSource):
        return f"phantom {source.phantom_seed}"
    name = "/".join(Path(source.raw).parts[-2:])
    return name if source.z_range is None else f"{name} z {source.z_range[0]}-{source.z_range[1] - 1}"


def voxels(config: TrainConfig) -> int:
    """How many voxels a training draws in all."""
    return sum(stage.steps * stage.batch * prod(stage.crop) for stage in config.stages)


def _source(
    name: str,
    slices: Slices,
    downsample: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    crop: str = "",
) -> VolumeSource:
    raw, instances = (f"${{TERAMITO_DATA}}/{name}_{kind}.tif{crop}" for kind in ("raw", "instances"))
    return VolumeSource(
        raw=raw, instances=instances, z_range=slices, downsample=downsample, voxel_size_nm=voxel_size_nm
    )
