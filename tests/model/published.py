"""The two published networks, once more: their layers by the names of the authors' checkpoints, and what they compute.

Written from the published structure alone, as plain functions over a dictionary of tensors, to compare with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
TAPS = torch.tensor([0.25, 0.75, 0.75, 0.25])


def checkpoint_r(widths: tuple[int, ...], seed: int = 0) -> State:
    """Every entry of the state dict of unet_residual_3d, also those that it never uses."""
    layers: dict[str, tuple[int, int, tuple[int, int, int]]] = {"downE.0.1": (1, widths[0], (1, 5, 5))}

    def anisotropic(first: str, residual: str, inputs: int, outputs: int) -> None:
        layers[first] = (inputs, outputs, (1, 3, 3))
        layers[f"{residual}.conv.0.1"] = layers[f"{residual}.conv.1.1"] = (outputs, outputs, (3, 3, 3))
        layers[f"{residual}.projector.0"] = (outputs, outputs, (1, 1, 1))

    anisotropic("downE.1.1", "downE.2", widths[0], widths[0])
    for k in range(3):
        anisotropic(f"downC.{k}.0.1", f"downC.{k}.1", widths[k], widths[k + 1])
    for k in range(4):
        layers[f"downS.{k}.1"] = (widths[k], widths[k], (1, 3, 3))
    anisotropic("center.0.1", "center.1", widths[3], widths[4])
    for k in range(4):
        layers[f"middle.{k}.0.1"] = (widths[k], widths[k], (1, 3, 3))
    for k in range(3):
        anisotropic(f"upC.{k}.0.1", f"upC.{k}.1", widths[k + 1], widths[k + 1])
    anisotropic("upE.0.1", "upE.1", widths[0], widths[0])
    layers["upE.2.1"] = (widths[0], 2, (1, 5, 5))
    for k in range(4):
        layers[f"upS.{k}.0.0"] = (widths[k + 1], widths[k], (1, 1, 1))
    kernels = {f"upS.{k}.1.weight": kernel(widths[k]) for k in range(4)}
    return random_state(layers, seed) | kernels


def checkpoint_h(widths: tuple[int, ...], seed: int = 0) -> State:
    """Every entry of the state dict of RSUNet."""
    top = widths[0]
    layers = {"embed_in.conv1.conv": (1, top, (3, 3, 3)), "embed_in.conv2.conv": (top, top, (3, 3, 3))}

    def module(name: str, inputs: int, outputs: int) -> None:
        layers[f"{name}.conv1.conv"] = (inputs, outputs, (1, 3, 3))
        layers[f"{name}.conv2.conv"] = layers[f"{name}.conv3.conv"] = (outputs, outputs, (3, 3, 3))

    for d, width in enumerate(widths):
        module(f"convmod{d}", widths[max(d - 1, 0)], width)
    kernels = {}
    for letter in "oc":
        for d in range(4):
            layers[f"upsample{d}_{letter}.conv.conv"] = (widths[d + 1], widths[d], (1, 1, 1))
            kernels[f"upsample{d}_{letter}.up.weight"] = kernel(widths[d + 1])
            module(f"dconvmod{d}_{letter}", widths[d], widths[d])
    layers["embed_out1.conv.conv"] = layers["embed_out2.conv.conv"] = (top, 1, (1, 3, 3))
    return random_state(layers, seed) | kernels


def random_state(layers: dict[str, tuple[int, int, tuple[int, int, int]]], seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, (inputs, outputs, size) in layers.items():
        scale = (inputs * size[0] * size[1] * size[2]) ** -0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, *size, generator=generator) * scale
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.2
    return state


def kernel(channels: int) -> Tensor:
    return torch.outer(TAPS, TAPS).expand(channels, 1, 1, 4, 4).clone()


def up(x: Tensor) -> Tensor:
    """The fixed bilinear transposed convolution, one kernel a channel."""
    return functional.conv_transpose3d(
        x, kernel(x.shape[1]).to(x.device), stride=(1, 2, 2), padding=(0, 1, 1), groups=x.shape[1]
    )


def replicated(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution with the edge voxel repeated beyond the border."""
    weight = state[f"{name}.weight"]
    depth, height, width = (size // 2 for size in weight.shape[2:])
    x = functional.pad(x, (width, width, height, height, depth, depth), mode="replicate")
    return functional.conv3d(x, weight, state[f"{name}.bias"], stride=(1, stride, stride))


def zeroed(state: State, name: str, x: Tensor) -> Tensor:
    """A convolution with zeros beyond the border."""
    weight = state[f"{name}.weight"]
    return functional.conv3d(x, weight, state[f"{name}.bias"], padding=[size // 2 for size in weight.shape[2:]])


def partial(state: State, name: str, x: Tensor) -> Tensor:
    """A partial convolution, by counting the taps that lie in the volume."""
    weight = state[f"{name}.weight"]
    inside = functional.conv3d(torch.ones_like(x[:, :1]), torch.ones(1, 1, 3, 3, 3), padding=1)
    return functional.conv3d(x, weight, padding=1) * (27 / inside) + state[f"{name}.bias"].view(1, -1, 1, 1, 1)


def logits_r(state: State, x: Tensor) -> Tensor:
    def anisotropic(first: str, residual: str, x: Tensor) -> Tensor:
        x = functional.elu(replicated(state, first, x))
        skip = replicated(state, "center.1.projector.0", x) if residual == "center.1" else x
        y = functional.elu(replicated(state, f"{residual}.conv.0.1", x))
        return functional.elu(replicated(state, f"{residual}.conv.1.1", y) + skip)

    x = anisotropic("downE.1.1", "downE.2", functional.elu(replicated(state, "downE.0.1", x)))
    skips = [functional.elu(replicated(state, "middle.0.0.1", x))]
    for k in range(3):
        x = functional.elu(replicated(state, f"downS.{k}.1", x, stride=2))
        x = anisotropic(f"downC.{k}.0.1", f"downC.{k}.1", x)
        skips.append(x)
    x = anisotropic("center.0.1", "center.1", functional.elu(replicated(state, "downS.3.1", x, stride=2)))
    for k in (3, 2, 1, 0):
        x = up(functional.elu(replicated(state, f"upS.{k}.0.0", x))) + skips[k]
        x = anisotropic(*((f"upC.{k - 1}.0.1", f"upC.{k - 1}.1") if k else ("upE.0.1", "upE.1")), x)
    return replicated(state, "upE.2.1", x)


def logits_h(state: State, x: Tensor) -> Tensor:
    def module(name: str, x: Tensor) -> Tensor:
        skip = functional.elu(zeroed(state, f"{name}.conv1.conv", x))
        y = functional.elu(zeroed(state, f"{name}.conv2.conv", skip))
        return functional.elu(zeroed(state, f"{name}.conv3.conv", y) + skip)

    x = functional.elu(partial(state, "embed_in.conv1.conv", x))
    x = module("convmod0", functional.elu(partial(state, "embed_in.conv2.conv", x)))
    skips = [x]
    for d in range(1, 5):
        x = module(f"convmod{d}", functional.max_pool3d(x, (1, 2, 2)))
        skips.append(x)
    outputs = []
    for letter, head in (("o", "embed_out1"), ("c", "embed_out2")):
        y = x
        for d in (3, 2, 1, 0):
            y = functional.elu(zeroed(state, f"upsample{d}_{letter}.conv.conv", up(y)) + skips[d])
            y = module(f"dconvmod{d}_{letter}", y)
        outputs.append(zeroed(state, f"{head}.conv.conv", y))
    return torch.cat(outputs, 1)
