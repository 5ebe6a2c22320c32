"""From instance labels to the two maps a network learns: the mask and the instance boundary.

The rules are those of the MitoEM2021 challenge's winning entry, applied slice by slice at the voxel size of the model.
All functions take and give tensors with the slice axes last: (..., H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

REACH = 2
"""Half-size of the boundary window: 4 voxels thick against the background, 2 inside and 2 outside."""

MARGIN = REACH + 1
"""Voxels beyond a crop, in the plane, that decide its targets: one for the gap, `REACH` for the boundary."""

_MOST = float(2**24)
"""Labels pass through float32 filters, which hold every integer up to here."""


def targets(instances: Tensor) -> Tensor:
    """Integer instances (D, H, W), 0 = background -> float32 (2, D, H, W) of 0 and 1: mask, boundary."""
    separated = with_gaps(instances)
    return torch.stack([(separated > 0).float(), boundary(separated).float()])


def with_gaps(instances: Tensor) -> Tensor:
    """Clear every voxel whose 3x3 in-plane window holds more than one object: touching ones part by 2 voxels."""
    labels = instances.float()
    lowest = -_highest(torch.where(labels > 0, -labels, torch.full_like(labels, -_MOST)), 1)
    return torch.where(_highest(labels, 1) > lowest, torch.zeros_like(instances), instances)


def boundary(instances: Tensor) -> Tensor:
    """True where the 5x5 in-plane window holds two different labels (background is one), so at least one object.

    At the edge of the slice the window is mirrored without repeating the edge voxel, so nothing lies beyond it.
    """
    labels = instances.float()
    return _highest(labels, REACH) != -_highest(-labels, REACH)


def _highest(values: Tensor, reach: int) -> Tensor:
    """Maximum over the in-plane window of half-size `reach`.

    max_pool2d pads with -inf. For a maximum a mirrored border gives the same: the mirrored voxels are in the window.
    """
    flat = values.reshape(-1, 1, *values.shape[-2:])
    return functional.max_pool2d(flat, 2 * reach + 1, stride=1, padding=reach).reshape(values.shape)
