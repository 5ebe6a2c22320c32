"""A trained restorer in memory: checked, loaded once per process, slices in and slices out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.folding import OneDnnConv3d
from pipeline.model.interpolation import InterpolationNet
from pipeline.model.loaded import LoadedNetwork, Once, checked_tensors
from pipeline.model.noise2noise import Noise2NoiseNet, as_convolution
from pipeline.model.registry import refuse_mismatches
from pipeline.model.restorer_spec import RestorerKind, RestorerSpec, Unsharp, load_restorer_spec, restorer_path

NETWORKS: Mapping[RestorerKind, type[nn.Module]] = {"interpolation": InterpolationNet, "noise2noise": Noise2NoiseNet}


@dataclass(frozen=True)
class LoadedRestorer(LoadedNetwork[RestorerSpec]):
    """A network ready for inference; `restore` may be called from several threads."""

    def restore(self, inputs: NDArray[np.float32], fraction: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Slices made new; on a CPU the same bits for any number of threads and whatever else is in the batch.

        Args:
            inputs: (N, C, H, W), grey levels over 255; C = 2, before and after ("interpolation"), or C = 1, the slice
                itself ("noise2noise").
            fraction: (N, H, W), how far each pixel lies from before (0) to after (1), 0.5 everywhere where it is
                missing; of "interpolation" only.

        Returns:
            (N, H, W) of 0..1.

        Raises:
            BadInput: arrays of another shape, or a fraction for a network that takes none.
        """
        _check_shapes(inputs.shape, None if fraction is None else fraction.shape, self.spec)
        with torch.inference_mode():
            placed = self._placed(inputs).contiguous(memory_format=torch.channels_last)
            arguments = [] if fraction is None else [self._placed(fraction)[:, None]]
            result: NDArray[np.float32] = self.network(placed, *arguments)[:, 0].float().cpu().numpy()
        if self.spec.unsharp is not None:
            result = _sharpened(result, self.spec.unsharp)
        return np.clip(result, 0.0, 1.0)

    def _placed(self, values: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(values).to(self.device, torch.float32)


def load_restorer(name_or_path: str | Path, device: str = "cpu") -> LoadedRestorer:
    """The restorer of a shipped name or of a .json specification; the same object on every call in this process.

    Raises:
        BadInput: unknown name, no such device, a model of mitochondria, weights missing, of another sha256, not
            safetensors, or of another network.
    """
    return _once(name_or_path, device)


def _load(path: Path, device: torch.device) -> LoadedRestorer:
    spec = load_restorer_spec(path)
    network = restoring_network(path, spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        _on_onednn(network)
    return LoadedRestorer(spec, network.requires_grad_(False), device)


_once = Once(restorer_path, _load)


def restoring_network(path: Path, spec: RestorerSpec) -> nn.Module:
    """The network of the specification at `path` with its weights, as it was trained, in evaluation mode.

    Raises:
        BadInput: weights missing, of another sha256, not safetensors, or of another network.
    """
    state = checked_tensors(path, spec)
    with torch.device("meta"):
        network = NETWORKS[spec.kind](**spec.options)
    refuse_mismatches(network.state_dict(), state, str(path.parent / spec.weights))
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return network.eval()


def _on_onednn(network: nn.Module) -> None:
    """Every convolution in place as one whose bits depend on its input alone; unchanged in a torch without oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    _replace(network, nn.ConvTranspose2d, as_convolution)
    _replace(network, nn.Conv2d, OneDnnConv3d)  # the same call for two axes as for three


def _replace(network: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is kind:
                setattr(module, name, make(child))


def _sharpened(images: NDArray[np.float32], mask: Unsharp) -> NDArray[np.float32]:
    sharpened: NDArray[np.float32] = images + np.float32(mask.amount) * (images - _blurred(images, mask.radius))
    return sharpened


def _blurred(images: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    """A Gaussian down the columns, then along the rows, out to four radii; the border repeats beyond itself."""
    reach = int(4.0 * radius + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    weights /= weights.sum()
    for _ in range(2):
        padded = np.pad(images, ((0, 0), (reach, reach), (0, 0)), mode="edge")
        blurred = np.zeros_like(images)
        for shift, weight in enumerate(weights):
            blurred += np.float32(weight) * padded[:, shift : shift + images.shape[1]]
        images = blurred.swapaxes(1, 2)
    return images


def _check_shapes(inputs: tuple[int, ...], fraction: tuple[int, ...] | None, spec: RestorerSpec) -> None:
    if len(inputs) != 4 or inputs[1] != spec.channels or any(size % spec.multiple for size in inputs[2:]):
        raise BadInput(
            f"slices of shape {inputs}",
            f"inputs are (N, {spec.channels}, H, W) with H and W multiples of {spec.multiple}",
            f"{spec.name} needs it so",
            "Pad or choose another patch size.",
        )
    if fraction is not None and (spec.kind != "interpolation" or fraction != (inputs[0], *inputs[2:])):
        raise BadInput(
            f"a fraction of shape {fraction}",
            f"it is (N, H, W) of the inputs, here {(inputs[0], *inputs[2:])}, and of an interpolation network only",
            f"{spec.name} is of kind {spec.kind}",
        )
