"""The interpolation network: a slice as local convolutions of its two neighbours, with kernels that it predicts.

The network with which damaged slices are restored for the segmentation (Huang et al., "Learning to restore ssTEM images
from deformation and corruption", ECCV workshops 2020; the separable kernels and the topology are those of Niklaus et
al., "Video frame interpolation via adaptive separable convolution", ICCV 2017). For every pixel and each neighbour it
gives a vertical and a horizontal kernel; the pixel is the sum of the two neighbours, each convolved with its own.

Two deviations from what is published. The published stem takes each neighbour three times, as the colours of an image;
with one channel each, the first convolution sums over the copies and is the same function. The last convolution of each
head starts as a delta, so that the untrained network is the mean of the neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.local_convolution import local_convolution
from pipeline.model.restorer_spec import INTERPOLATION_TAPS, INTERPOLATION_WIDTHS

STEM = 6
"""Channels inside the first level, as published: three colours of two slices."""
GAIN = 2.0**0.5
FIRST_SHARE = 1e-4
"""Of the orthogonal weights with which a head's last convolution starts: the rest of the network gets a gradient at
once, and an untrained network differs from the mean of the neighbours by less than a grey level."""


def convolutions(*channels: int) -> nn.Sequential:
    """3x3 convolutions from each number of channels to the next, zeros beyond the border, a ReLU after each."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Doubled(nn.Module):
    """Twice the height and width, linear, the corners of the image kept in place (align_corners=True)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)."""
        return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Head(nn.Sequential):
    """From the features at half size to one kernel of `taps` values a pixel; starts as a delta of `height`."""

    def __init__(self, width: int, taps: int, height: float) -> None:
        last = nn.Conv2d(taps, taps, 3, padding=1)
        super().__init__(convolutions(width, width, width, taps), Doubled(), last)
        _orthogonal(self)
        assert last.bias is not None  # it has one by default
        with torch.no_grad():
            last.weight.mul_(FIRST_SHARE)
            last.bias.zero_()
            last.bias[taps // 2] = height


class Features(nn.Module):
    """Encoder and decoder: (N, 2, H, W) -> (N, widths[1], H/2, W/2).

    Three convolutions a level, 2x2 averages between the levels. On the way up, each level is narrowed by three
    convolutions (the deepest is not), doubled, convolved and added to the encoder's; it ends at half size.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        levels = [convolutions(2, STEM, STEM, widths[0]), *(convolutions(a, a, a, b) for a, b in pairs)]
        self.levels = nn.ModuleList(levels)
        rises = [_rise(deep, fine) for fine, deep in pairs[1:-1]]
        if len(pairs) > 1:
            rises.append(nn.Sequential(Doubled(), convolutions(widths[-1], widths[-2])))
        self.rises = nn.ModuleList(rises)
        _orthogonal(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, H, W) -> (N, widths[1], H/2, W/2)."""
        features = []
        for number, level in enumerate(self.levels):
            x = level(functional.avg_pool2d(x, 2) if number else x)
            features.append(x)
        for number in reversed(range(len(self.rises))):
            x = self.rises[number](x) + features[number + 1]
        return x


class InterpolationNet(nn.Module):
    """(N, 2, H, W) float32 of 0..1, the slices before and after -> (N, 1, H, W), about 0..1, not clipped.

    Height and width are multiples of `multiple`, two to the power of the levels less one. Weights start orthogonal with
    the gain of a ReLU, as published, biases as torch has them. With the default arguments 21,602,040 parameters. The
    arguments are those of `restorer_spec.InterpolationOptions`.
    """

    channels = 2

    def __init__(self, widths: Sequence[int] = INTERPOLATION_WIDTHS, taps: int = INTERPOLATION_TAPS) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.features = Features(widths)
        self.vertical = nn.ModuleList(Head(widths[1], taps, 1.0) for _ in range(2))
        self.horizontal = nn.ModuleList(Head(widths[1], taps, 0.5) for _ in range(2))

    def parts(self, pair: Tensor) -> Tensor:
        """(N, 2, H, W), before and after -> (N, 2, H, W), each convolved with its kernels."""
        features = self.features(pair)
        return torch.cat([self._part(features, pair, side) for side in range(2)], dim=1)

    def forward(self, pair: Tensor, fraction: float | Tensor = 0.5) -> Tensor:
        """The slice at `fraction` of the way from before to after, (N, 1, H, W).

        Args:
            pair: (N, 2, H, W).
            fraction: 0..1, one number or (N, 1, H, W). The network is trained in the middle, 0.5, where the result is
                the sum of the two parts; elsewhere they are weighted by nearness.
        """
        parts = self.parts(pair)
        return 2.0 * (1.0 - fraction) * parts[:, :1] + 2.0 * fraction * parts[:, 1:]

    def _part(self, features: Tensor, pair: Tensor, side: int) -> Tensor:
        vertical, horizontal = self.vertical[side](features), self.horizontal[side](features)
        return local_convolution(pair[:, side : side + 1], vertical, horizontal)


def _rise(deep: int, fine: int) -> nn.Sequential:
    return nn.Sequential(convolutions(deep, deep, deep, fine), Doubled(), convolutions(fine, fine))


def _orthogonal(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight, GAIN)
