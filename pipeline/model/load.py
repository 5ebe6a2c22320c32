"""A trained model in memory: checked, BatchNorm folded away, loaded once per process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.folding import folded, on_onednn
from pipeline.model.foreign import foreign_network
from pipeline.model.loaded import LoadedNetwork, Once, checked_tensors
from pipeline.model.options import FILE_KINDS
from pipeline.model.registry import build, load_weights
from pipeline.model.spec import ModelSpec, divides, load_spec, spec_path


@dataclass(frozen=True)
class LoadedModel(LoadedNetwork[ModelSpec]):
    """A network ready for inference; `predict` may be called from several threads."""

    def predict(self, patches: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
        """Normalised patches (N, 1, D, H, W) float32 -> probabilities (N, 2, D, H, W): semantic, boundary.

        A patch's result depends on that patch alone: on a CPU it has the same bits for any number of threads and
        whatever else is in the batch.

        Networks that are not built from `blocks` may not hold to that.

        Raises:
            BadInput: patches of another shape or size, or a network that does not give two channels of their size.
        """
        inputs = torch.as_tensor(patches)
        _check_shape(tuple(inputs.shape), self.spec)
        with torch.inference_mode():
            placed = inputs.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last_3d)
            output = self.network(placed)
        _check_output(output, inputs, self.spec)
        result: NDArray[np.float32] = output.float().cpu().contiguous().numpy()
        return result


def load_model(name_or_path: str | Path, device: str = "cpu") -> LoadedModel:
    """The model of a shipped name or of a .json specification; the same object on every call in this process.

    Raises:
        BadInput: unknown name, no such device, weights missing, of another sha256, not safetensors, or of another
            architecture.
    """
    return _once(name_or_path, device)


def _load(path: Path, device: torch.device) -> LoadedModel:
    spec = load_spec(path)
    network = trained_network(path, spec)
    if spec.architecture in FILE_KINDS:
        return LoadedModel(spec, network.to(device), device)
    ready = folded(network).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if device.type == "cpu":
        ready = on_onednn(ready)
    return LoadedModel(spec, ready.requires_grad_(False), device)


_once = Once(spec_path, _load)


def trained_network(path: Path, spec: ModelSpec) -> nn.Module:
    """The network of the specification at `path` with its weights, as it was trained: nothing folded.

    Raises:
        BadInput: weights or code missing or of another sha256, not safetensors, or of another architecture.
    """
    weights = path.parent / spec.weights
    if spec.architecture in FILE_KINDS:
        return foreign_network(spec.architecture, spec.weights_beside(path), str(weights))
    network = build(spec.architecture, spec.options, path.parent, spec.code_sha256)
    _check_multiple(network, spec, path)
    load_weights(network, checked_tensors(path, spec), str(weights))
    return network.eval()


def _check_shape(shape: tuple[int, ...], spec: ModelSpec) -> None:
    if len(shape) != 5 or shape[1] != 1 or not divides(spec.multiple, (shape[2], shape[3], shape[4])):
        raise BadInput(
            f"patches of shape {shape}",
            f"patches are (N, 1, D, H, W) with D, H and W multiples of {list(spec.multiple)}",
            f"{spec.name} needs it so",
            "Pad or choose another patch size.",
        )


def _check_output(output: object, inputs: Tensor, spec: ModelSpec) -> None:
    expected = (len(inputs), 2, *inputs.shape[2:])
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BadInput(
            f"the network of {spec.name} ({spec.architecture})",
            f"a network gives probabilities (N, 2, D, H, W), here {expected}: semantic, boundary",
            f"this one gives {found}",
        )


def _check_multiple(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    own = tuple(network.multiple)  # type: ignore[arg-type]
    if not divides(own, spec.multiple):
        raise BadInput(
            f"{path}: multiple {list(spec.multiple)}",
            f"it is a multiple of what the network itself needs, {list(own)}",
            "patches of another size would fail in every worker",
            f"Write {list(own)}.",
        )
