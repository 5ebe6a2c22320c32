"""Smooth outlines after resampling."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.training.augment.warp import gaussian

SIGMA = 2.0
ABOVE = 0.8
_BEYOND = 12
"""Voxels beyond an object that its smoothing looks at: two rounds of a dilation and most of a Gaussian."""


def smoothed(instances: Tensor) -> Tensor:
    """Each object's outline smoothed slice by slice: twice {dilate, Gaussian of sigma 2, dilate, > 0.8}.

    Dilation is by a cross of 3x3 voxels (of the Gaussian's result: its maximum there). Straight outlines stay where
    they are, corners are rounded, specks vanish. Where two objects claim a voxel the higher id has it.

    Args:
        instances: integers (D, H, W), 0 = background.
    """
    result = torch.zeros_like(instances)
    for label in torch.unique(instances).tolist():
        if label:
            mask = instances == label
            box = _box(mask)
            result[box].masked_fill_(_smooth(mask[box]), label)
    return result


def _smooth(mask: Tensor) -> Tensor:
    for _ in range(2):
        mask = _dilated(gaussian(_dilated(mask.float()), SIGMA)) > ABOVE
    return mask


def _dilated(values: Tensor) -> Tensor:
    """Maximum over each voxel and its four neighbours in the plane, of (D, H, W)."""
    result = values.clone()
    torch.maximum(result[:, 1:], values[:, :-1], out=result[:, 1:])
    torch.maximum(result[:, :-1], values[:, 1:], out=result[:, :-1])
    torch.maximum(result[..., 1:], values[..., :-1], out=result[..., 1:])
    torch.maximum(result[..., :-1], values[..., 1:], out=result[..., :-1])
    return result


def _box(mask: Tensor) -> tuple[slice, slice, slice]:
    """Where the object is, and as far beyond in the plane as its smoothing looks."""
    slices = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        found = mask.sum(dim=others).nonzero()
        beyond = 0 if axis == 0 else _BEYOND
        slices.append(slice(max(0, int(found[0]) - beyond), int(found[-1]) + 1 + beyond))
    z, y, x = slices
    return z, y, x
