"""From a trained network to the two files of a model or a restorer: NAME.safetensors and NAME.json."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from torch import nn

from pipeline.model.restorer_spec import RestorerSpec
from pipeline.model.spec import ModelSpec
from pipeline.model.tensors import to_bytes


def write_weights(network: nn.Module, name: str, directory: Path) -> dict[str, str]:
    """Write NAME.safetensors; the fields `weights` and `sha256` of its specification."""
    content = to_bytes(network.state_dict())
    path = directory / f"{name}.safetensors"
    path.write_bytes(content)
    return {"weights": path.name, "sha256": sha256(content).hexdigest()}


def write_specification(spec: ModelSpec | RestorerSpec, directory: Path) -> Path:
    """Write NAME.json; returns its path."""
    path = directory / f"{spec.name}.json"
    path.write_text(spec.model_dump_json(indent=2) + "\n")
    return path
