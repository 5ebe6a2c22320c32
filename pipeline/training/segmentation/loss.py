"""The loss: weighted cross-entropy, in which rare foreground counts as much as the background around it, and Dice."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

Clip = tuple[float, float]
CHANNELS = ("semantic", "boundary")


class Loss(BaseModel):
    """What is minimised; the defaults are those of the MitoEM2021 challenge's winning entry.

    Attributes:
        bce, dice: weights of the two kinds of loss.
        channels: weights of semantic mask and instance boundary.
        fraction_clip: bounds on the foreground fraction, see `weighted_bce`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    bce: float = Field(default=1.0, ge=0.0)
    dice: float = Field(default=0.0, ge=0.0)
    channels: tuple[float, float] = (1.0, 1.0)
    fraction_clip: Clip = (0.05, 0.99)

    @model_validator(mode="after")
    def _usable(self) -> Loss:
        if self.bce + self.dice <= 0.0 or min(self.channels) < 0.0 or max(self.channels) <= 0.0:
            raise ValueError("bce, dice, channels: none below 0; one of bce and dice, and one of the channels, above 0")
        if not 0.0 < self.fraction_clip[0] <= self.fraction_clip[1] < 1.0:
            raise ValueError("fraction_clip: between 0 and 1, the smaller one first")
        return self


def loss(logits: Tensor, target: Tensor, settings: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and what each channel adds to it.

    Args:
        logits: (N, 2, D, H, W), before the sigmoid; semantic mask and instance boundary.
        target: same shape, 0 or 1.
        settings: weights.

    Returns:
        A scalar, and scalars "semantic" and "boundary" that add up to it, detached and on the device of the logits, so
        that nobody waits for the device.
    """
    parts = logits.new_zeros(logits.shape[1], dtype=torch.float32)
    if settings.bce > 0.0:
        parts = parts + settings.bce * _weighted_bce(logits, target, settings.fraction_clip)
    if settings.dice > 0.0:
        parts = parts + settings.dice * _dice(logits, target)
    weighted = [weight * part for weight, part in zip(settings.channels, parts.unbind(), strict=True)]
    named = {name: part.detach() for name, part in zip(CHANNELS, weighted, strict=True)}
    return weighted[0] + weighted[1], named


def weighted_bce(logits: Tensor, target: Tensor, fraction_clip: Clip = (0.05, 0.99)) -> Tensor:
    """Sum over the channels of the mean weighted cross-entropy; equal to that of the MitoEM2021 winner's code.

    For each sample and channel let f be the foreground fraction, clipped. Foreground weighs (1-f)/f when f < 1/2;
    otherwise the background weighs f/(1-f). The other side weighs 1; a target that is all 0 or all 1 weighs 1
    throughout. Computed from logits, hence finite however sure and wrong the network is.

    Args:
        logits: (N, C, D, H, W), before the sigmoid.
        target: same shape, 0 or 1.
        fraction_clip: bounds on f; the published (0.05, 0.99) let the weight of the foreground reach 19.
    """
    return _weighted_bce(logits, target, fraction_clip).sum()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum over the channels of the mean over the samples of 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1).

    The 1 makes an empty target perfect where nothing is predicted (Milletari et al. 2016, with first powers).

    Args:
        logits: (N, C, D, H, W), before the sigmoid; p is their sigmoid.
        target: t, same shape, 0 or 1.
    """
    return _dice(logits, target).sum()


def _weighted_bce(logits: Tensor, target: Tensor, fraction_clip: Clip) -> Tensor:
    """(C,), in float32 whatever precision the logits have."""
    target = target.float()
    voxels = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (voxels * _weights(target, fraction_clip)).mean(dim=(0, 2, 3, 4))


def _weights(target: Tensor, fraction_clip: Clip) -> Tensor:
    exact = target.mean(dim=(2, 3, 4), keepdim=True)
    fraction = exact.clamp(*fraction_clip)
    ratio = (1.0 - fraction) / fraction
    ratio = torch.where((exact > 0.0) & (exact < 1.0), ratio, torch.ones_like(ratio))
    return torch.where(target > 0, ratio.clamp(min=1.0), (1.0 / ratio).clamp(min=1.0))


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """(C,), in float32 whatever precision the logits have."""
    found, true = logits.float().sigmoid().flatten(2), target.float().flatten(2)
    shared = 2.0 * (found * true).sum(-1) + 1.0
    return (1.0 - shared / (found.sum(-1) + true.sum(-1) + 1.0)).mean(0)
