"""From instance labels to the two maps a network learns: the mask and the instance boundary.

The rules are those of the MitoEM2021 challenge's winning entry, applied slice by slice at the voxel size of the model.
All functions take and give tensors with the slice axes last, (..., H, W), on any device. Labels are compared as
integers, so ids of any size are told apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 2
"""Half-size of the boundary window: 4 voxels thick against the background, 2 inside and 2 outside."""

MARGIN = REACH + 1
"""Voxels beyond a crop, in the plane, that decide its targets: one for the gap, `REACH` for the boundary."""


def targets(instances: Tensor, gap: bool = True) -> Tensor:
    """Instances (D, H, W) or (N, D, H, W), integers, 0 = background -> float32 (2, D, H, W) or (N, 2, D, H, W), 0 or 1.

    Channel 0 is the mask, 1 the boundary. Without `gap`, touching objects stay touching: their mask runs through, and
    the boundary between them is 4 voxels thick instead of 6.
    """
    separated = with_gaps(instances) if gap else _signed(instances)
    return torch.stack([(separated > 0).float(), boundary(separated).float()], dim=-4)


def with_gaps(instances: Tensor) -> Tensor:
    """Clear every voxel whose 3x3 in-plane window holds more than one object: touching ones part by 2 voxels.

    Unsigned integers come back as int64.
    """
    labels = _signed(instances)
    lowest = _extreme(torch.minimum, torch.where(labels > 0, labels, torch.iinfo(labels.dtype).max), 1)
    return torch.where(_extreme(torch.maximum, labels, 1) > lowest, torch.zeros_like(labels), labels)


def boundary(instances: Tensor) -> Tensor:
    """True where the 5x5 in-plane window holds two different labels (background is one), so at least one object.

    At the edge of the slice the window is mirrored without repeating the edge voxel, so nothing lies beyond it.
    """
    labels = _signed(instances)
    return _extreme(torch.maximum, labels, REACH) != _extreme(torch.minimum, labels, REACH)


def _extreme(larger: Callable[..., Tensor], values: Tensor, reach: int) -> Tensor:
    """Maximum (minimum) over the in-plane window of half-size `reach`, first along y, then along x.

    The window ends at the slice's edge. For an extreme a mirrored border gives the same: the mirrored voxels are in the
    window anyway.
    """
    for axis in (-2, -1):
        size, result = values.shape[axis], values.clone()
        for step in range(1, min(reach, size - 1) + 1):
            near, far = result.narrow(axis, 0, size - step), result.narrow(axis, step, size - step)
            larger(near, values.narrow(axis, step, size - step), out=near)
            larger(far, values.narrow(axis, 0, size - step), out=far)
        values = result
    return values


def _signed(instances: Tensor) -> Tensor:
    """Torch orders and shifts signed integers only (but for uint8)."""
    return instances if instances.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) else instances.long()
