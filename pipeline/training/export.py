"""From a trained network to the two files of a model: NAME.safetensors and NAME.json."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.model.resunet_h import ResUNetH
from pipeline.model.spec import ModelSpec, Thresholds
from pipeline.training.config import TrainConfig


def export(network: ResUNetH, config: TrainConfig, directory: Path, thresholds: Thresholds | None = None) -> Path:
    """Write weights and specification; returns the path of the specification."""
    from safetensors.torch import save  # not needed to train, only to end

    weights = directory / f"{config.name}.safetensors"
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    weights.write_bytes(save(state))
    spec = ModelSpec(
        name=config.name,
        description=config.description,
        widths=config.widths,
        norm=config.norm,
        padding=config.padding,
        voxel_size_nm=config.voxel_size_nm,
        patch=config.patch,
        overlap=config.overlap,
        normalisation=config.normalisation,
        weights=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        thresholds=thresholds or Thresholds(),
    )
    path = directory / f"{config.name}.json"
    path.write_text(spec.model_dump_json(indent=2) + "\n")
    return path
