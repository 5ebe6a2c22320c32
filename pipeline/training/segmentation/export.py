"""The model that a training ends with."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import BadInput
from pipeline.model.options import class_in_file
from pipeline.model.spec import ModelSpec, Thresholds
from pipeline.training import checkpoint
from pipeline.training.model_files import write_specification, write_weights
from pipeline.training.segmentation.config import TrainConfig


def export(network: nn.Module, config: TrainConfig, directory: Path, thresholds: Thresholds | None = None) -> Path:
    """Write weights and specification; returns the path of the specification.

    The file of a FILE.py:CLASS architecture, which `keep_code` put beside them, is pinned by its sha256.
    """
    spec = ModelSpec(
        name=config.name,
        description=config.description,
        **_architecture(network, config, directory),
        voxel_size_nm=config.voxel_size_nm,
        patch=config.patch,
        overlap=config.overlap,
        normalisation=config.normalisation,
        **write_weights(network, config.name, directory),
        thresholds=thresholds or Thresholds(),
    )
    return write_specification(spec, directory)


def _architecture(network: nn.Module, config: TrainConfig, directory: Path) -> dict[str, Any]:
    own = {"architecture": config.architecture, "options": config.options, "multiple": network.multiple}
    if (place := class_in_file(config.architecture)) is None:
        return own
    return {**own, "code_sha256": sha256((directory / place[0]).read_bytes()).hexdigest()}


def keep_code(config: TrainConfig, directory: Path) -> None:
    """Copy the file of a FILE.py:CLASS architecture into the output directory, where the model will need it.

    Called at the start, so that a file edited while a training runs is not taken for the code that was trained.

    Raises:
        BadInput: steps were taken with another content of the file.
    """
    if (place := class_in_file(config.architecture)) is None:
        return
    given, kept = Path(place[0]).read_bytes(), directory / place[0]
    if kept.is_file() and kept.read_bytes() == given:
        return
    if kept.is_file() and (directory / checkpoint.FILE).is_file():
        raise BadInput(
            f"{place[0]}: edited since this training began",
            "a run is resumed with the code that its past steps had",
            "the result would follow from neither",
            f"Restore it from {kept}, or choose another `output`.",
        )
    kept.write_bytes(given)
