"""What a network costs: parameters, and arithmetic a voxel."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.geometry import Triple


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def gflop_a_megavoxel(network: nn.Module, patch: Triple) -> float | None:
    """10^9 operations for 10^6 voxels of input, in patches of that size (z, y, x).

    Convolutions and matrix products are counted, a multiplication and its sum as two; nothing is computed.

    Returns:
        None for a network that cannot be run on sizes alone (a TorchScript file, or one that looks at values).
    """
    if isinstance(network, torch.jit.ScriptModule):
        return None
    hollow = copy.deepcopy(network).to("meta")
    try:
        with FlopCounterMode(display=False) as counter:
            hollow(torch.empty(1, 1, *patch, device="meta"))
    except (RuntimeError, NotImplementedError):
        return None
    voxels = patch[0] * patch[1] * patch[2]
    return float(counter.get_total_flops()) / 1e9 / (voxels / 1e6)
