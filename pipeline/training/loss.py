"""Weighted binary cross-entropy: rare foreground counts as much as the background around it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def weighted_bce(logits: Tensor, target: Tensor, fraction_clip: tuple[float, float] = (0.05, 0.99)) -> Tensor:
    """Sum over the channels of the mean weighted cross-entropy; equal to that of the MitoEM2021 winner's code.

    For each sample and channel let f be the foreground fraction, clipped. Foreground weighs (1-f)/f when f < 1/2;
    otherwise the background weighs f/(1-f). The other side weighs 1; a target that is all 0 or all 1 weighs 1
    throughout. Computed from logits, hence finite however sure and wrong the network is.

    Args:
        logits: (N, C, D, H, W), before the sigmoid.
        target: same shape, 0 or 1.
        fraction_clip: bounds on f; the published (0.05, 0.99) let the weight of the foreground reach 19.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weighted = loss * _weights(target, fraction_clip)
    return weighted.mean(dim=(0, 2, 3, 4)).sum()


def _weights(target: Tensor, fraction_clip: tuple[float, float]) -> Tensor:
    exact = target.mean(dim=(2, 3, 4), keepdim=True)
    fraction = exact.clamp(*fraction_clip)
    ratio = (1.0 - fraction) / fraction
    ratio = torch.where((exact > 0.0) & (exact < 1.0), ratio, torch.ones_like(ratio))
    return torch.where(target > 0, ratio.clamp(min=1.0), (1.0 / ratio).clamp(min=1.0))
