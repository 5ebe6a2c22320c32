"""The restorer that a training ends with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pipeline.model.restorer_spec import RestorerSpec
from pipeline.training.model_files import write_specification, write_weights
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.start import multiple_of


def export(network: nn.Module, config: RestorationConfig, directory: Path) -> Path:
    """Write weights and specification; returns the path of the specification."""
    spec = RestorerSpec(
        name=config.name,
        description=config.description,
        kind=config.task,
        options=config.options,
        multiple=multiple_of(network),
        patch=config.patch,
        overlap=config.overlap,
        voxel_size_nm=config.voxel_size_nm,
        unsharp=config.unsharp,
        **write_weights(network, config.name, directory),
    )
    return write_specification(spec, directory)
