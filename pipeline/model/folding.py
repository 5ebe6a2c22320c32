"""The same function, faster: BatchNorm folded into the convolutions before it, and oneDNN for all of them on a CPU.

Both work on every network built from `blocks.Conv` and leave everything else in a network as it is.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.model.blocks import Conv

_Network = TypeVar("_Network", bound=nn.Module)


def folded(network: _Network) -> _Network:
    """A copy in evaluation mode without BatchNorm; equal up to float32 rounding. Other norms stay as they are.

    In evaluation mode BatchNorm is y = g (x - m) / sqrt(v + eps) + b for each channel, so it is part of the weights
    and bias of the convolution before it. The sum is done in float64 and rounded once.
    """
    result = copy.deepcopy(network).eval()
    for conv in _convolutions(result):
        if isinstance(conv.norm, nn.BatchNorm3d):
            weight, bias = _merged(conv, conv.norm)
            with torch.no_grad():
                conv.conv.weight.copy_(weight)
                conv.added().copy_(bias)
            conv.norm = nn.Identity()
    return result


class OneDnnConv3d(nn.Module):
    """A float32 convolution for inference on a CPU that always runs in oneDNN, on (N, C, D, H, W) of any size.

    `nn.Conv3d` gives an input of one patch and few channels to torch's own slow_conv3d instead: a patch of 16x128x128
    through widths 8..40 took 2.3 s of one core there and 0.45 s here (torch 2.13, AVX-512, channels_last_3d; the
    default layout about doubles that).
    """

    def __init__(self, source: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias
        self.padding, self.stride, self.dilation, self.groups = _geometry(source)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) float32 -> as `nn.Conv3d`."""
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def on_onednn(network: _Network) -> _Network:
    """The network with its convolutions, in place, as `OneDnnConv3d`; as it is where this torch was built without."""
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in _convolutions(network):
            module.conv = OneDnnConv3d(module.conv)  # type: ignore[assignment]
    return network


def _geometry(conv: nn.Conv3d) -> tuple[list[int], list[int], list[int], int]:
    assert not isinstance(conv.padding, str)  # "same" is never used here
    return list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups


def _convolutions(network: nn.Module) -> list[Conv]:
    return [module for module in network.modules() if isinstance(module, Conv)]


def _merged(conv: Conv, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    weight, bias = conv.conv.weight.detach().double(), conv.added().detach().double()
    mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    factor = norm.weight.detach().double() / torch.sqrt(variance + norm.eps)
    return weight * factor[:, None, None, None, None], (bias - mean) * factor + norm.bias.detach().double()
