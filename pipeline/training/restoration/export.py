"""From a trained network to the files of a restorer: NAME.safetensors and NAME.json."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from torch import nn

from pipeline.model.restorer_spec import RestorerSpec
from pipeline.model.tensors import to_bytes
from pipeline.training.restoration.config import RestorationConfig


def export(network: nn.Module, config: RestorationConfig, directory: Path) -> Path:
    """Write weights and specification; returns the path of the specification."""
    content = to_bytes({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})
    weights = directory / f"{config.name}.safetensors"
    weights.write_bytes(content)
    spec = RestorerSpec(
        name=config.name,
        description=config.description,
        kind=config.task,
        options=config.options,
        multiple=int(network.multiple),  # type: ignore[arg-type]
        patch=config.patch,
        overlap=config.overlap,
        voxel_size_nm=config.voxel_size_nm,
        unsharp=config.unsharp,
        weights=weights.name,
        sha256=sha256(content).hexdigest(),
    )
    path = directory / f"{config.name}.json"
    path.write_text(spec.model_dump_json(indent=2) + "\n")
    return path
