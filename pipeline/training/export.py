"""From a trained network to the files of a model: NAME.safetensors and NAME.json."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.model.options import class_in_file
from pipeline.model.spec import ModelSpec, Thresholds
from pipeline.model.tensors import to_bytes
from pipeline.training.config import TrainConfig


def export(network: nn.Module, config: TrainConfig, directory: Path, thresholds: Thresholds | None = None) -> Path:
    """Write weights and specification; returns the path of the specification.

    The file of a FILE.py:CLASS architecture is copied beside them, pinned by its sha256.
    """
    weights = directory / f"{config.name}.safetensors"
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    weights.write_bytes(to_bytes(state))
    spec = ModelSpec(
        name=config.name,
        description=config.description,
        **_architecture(network, config, directory),
        voxel_size_nm=config.voxel_size_nm,
        patch=config.patch,
        overlap=config.overlap,
        normalisation=config.normalisation,
        weights=weights.name,
        sha256=_sha256(weights),
        thresholds=thresholds or Thresholds(),
    )
    path = directory / f"{config.name}.json"
    path.write_text(spec.model_dump_json(indent=2) + "\n")
    return path


def _architecture(network: nn.Module, config: TrainConfig, directory: Path) -> dict[str, Any]:
    own = {"architecture": config.architecture, "options": config.options, "multiple": network.multiple}
    if (place := class_in_file(config.architecture)) is None:
        return own
    copied = directory / place[0]
    if not copied.exists() or not copied.samefile(place[0]):
        shutil.copyfile(place[0], copied)
    return {**own, "code_sha256": _sha256(copied)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
