"""A trained model in memory: checked, BatchNorm folded away, loaded once per process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor

from pipeline.errors import BadInput
from pipeline.model.folding import folded, on_onednn
from pipeline.model.resunet_h import DIVISOR, ResUNetH
from pipeline.model.spec import ModelSpec, checked_bytes, load_spec, spec_path

_loaded: dict[tuple[Path, str], LoadedModel] = {}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class LoadedModel:
    """A network ready for inference; `predict` may be called from several threads."""

    spec: ModelSpec
    network: ResUNetH
    device: torch.device

    def predict(self, patches: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
        """Normalised patches (N, 1, D, H, W) float32 -> probabilities (N, 2, D, H, W): semantic, boundary.

        A patch's result depends on that patch alone: on a CPU it has the same bits for any number of threads and
        whatever else is in the batch.

        Raises:
            BadInput: another shape, or height or width no multiple of 16.
        """
        inputs = torch.as_tensor(patches)
        _check_shape(tuple(inputs.shape))
        with torch.inference_mode():
            placed = inputs.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last_3d)
            result: NDArray[np.float32] = self.network(placed).float().cpu().contiguous().numpy()
        return result


def load_model(name_or_path: str | Path, device: str = "cpu") -> LoadedModel:
    """The model of a shipped name or of a .json specification; the same object on every call in this process.

    Raises:
        BadInput: unknown name, weights missing, of another sha256, not safetensors, or of another architecture.
    """
    key = (spec_path(name_or_path).resolve(), device)
    with _one_at_a_time:
        if key not in _loaded:
            _loaded[key] = _load(key[0], torch.device(device))
        return _loaded[key]


def _load(path: Path, device: torch.device) -> LoadedModel:
    spec = load_spec(path)
    network = ResUNetH(spec.widths, spec.norm, spec.padding)
    state = checked_tensors(path.parent / spec.weights, spec)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(
            str(path.parent / spec.weights),
            "the weights fit the architecture in the specification",
            str(error).split("\n")[1].strip(),
            "Take widths, norm and weights from the same training run.",
        ) from error
    ready = folded(network.eval()).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if device.type == "cpu":
        ready = on_onednn(ready)
    return LoadedModel(spec, ready.requires_grad_(False), device)


def checked_tensors(path: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights at `path`; the hash is taken of the very bytes that are then parsed.

    Raises:
        BadInput: weights missing, of another sha256 than the specification's, or not safetensors.
    """
    content = checked_bytes(path, spec)
    try:
        return tensors_from_bytes(content)
    except SafetensorError as error:
        raise BadInput(
            str(path),
            "weights are a safetensors file",
            f"this is none ({error}); a pickle could run any code",
            "Convert them: safetensors.torch.save_file(state_dict, path).",
        ) from error


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 5 or shape[1] != 1 or shape[3] % DIVISOR or shape[4] % DIVISOR:
        raise BadInput(
            f"patches of shape {shape}",
            f"patches are (N, 1, D, H, W) with H and W multiples of {DIVISOR}",
            "the network halves them four times",
            "Pad or choose another patch size.",
        )
