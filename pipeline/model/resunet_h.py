"""Res-UNet-H: one residual encoder, two decoders, one for the mask and one for the instance boundary.

The network of the paper behind the MitoEM2021 challenge's winning entry (Li et al., "Advanced deep networks for 3D
mitochondria instance segmentation", ISBI 2022): the encoder of Res-UNet-R and, for each of the two outputs, a full
decoder of its own. With the published widths (28, 36, 48, 64, 80) and no normalisation it has 2,093,630 parameters.
Other widths and a normalisation layer after each convolution are our own additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.exact import elu_, sigmoid_

Norm = Literal["none", "batch", "instance"]
Padding = Literal["replicate", "zeros"]
PUBLISHED_WIDTHS = (28, 36, 48, 64, 80)
DIVISOR = 16
"""Height and width of the input are multiples of this: four halvings in the plane."""


class Conv(nn.Module):
    """One convolution that keeps the size (or halves it in the plane), then the optional normalisation.

    Odd kernel; input and output (N, C, D, H, W). The border is padded by hand, so that replicate padding costs one
    copy and zero padding none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int],
        norm: Norm,
        padding: Padding,
        stride: int = 1,
    ) -> None:
        super().__init__()
        half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        zeros = half if padding == "zeros" else (0, 0, 0)
        self.border = [] if padding == "zeros" else [side for size in reversed(half) for side in (size, size)]
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=zeros)
        self.norm = _norm_layer(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H/stride, W/stride)."""
        if any(self.border):
            x = functional.pad(x, self.border, mode="replicate")
        return cast(Tensor, self.norm(self.conv(x)))


def _norm_layer(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    return nn.Identity()


class ResidualBlock(nn.Module):
    """conv 1x3x3, ELU; then conv 3x3x3, ELU, conv 3x3x3 around a shortcut; ELU.

    The shortcut is the identity, and in the deepest level a 1x1x1 convolution (`projected`).
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm, padding: Padding, projected: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, (1, 3, 3), norm, padding)
        self.second = Conv(outputs, outputs, (3, 3, 3), norm, padding)
        self.third = Conv(outputs, outputs, (3, 3, 3), norm, padding)
        self.shortcut = Conv(outputs, outputs, (1, 1, 1), norm, padding) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H, W)."""
        x = _elu(self.first(x))
        return _elu(self.third(_elu(self.second(x))) + self.shortcut(x))


class Encoder(nn.Module):
    """Stem and five levels; each next level halves height and width by a strided convolution, never depth."""

    def __init__(self, widths: Sequence[int], norm: Norm, padding: Padding) -> None:
        super().__init__()
        top = widths[0]
        self.stem = Conv(1, top, (1, 5, 5), norm, padding)
        self.downs = nn.ModuleList([Conv(width, width, (1, 3, 3), norm, padding, stride=2) for width in widths[:-1]])
        last = len(widths) - 1
        self.levels = nn.ModuleList(
            ResidualBlock(widths[max(level - 1, 0)], width, norm, padding, projected=level == last)
            for level, width in enumerate(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1, D, H, W) -> the features of every level, finest first."""
        features = [self.levels[0](_elu(self.stem(x)))]
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            features.append(level(_elu(down(features[-1]))))
        return features


class Decoder(nn.Module):
    """From the deepest features back to full size, adding the encoder's features, to one channel of logits."""

    def __init__(self, widths: Sequence[int], norm: Norm, padding: Padding) -> None:
        super().__init__()
        steps = list(zip(widths[1:], widths[:-1], strict=True))
        self.narrow = nn.ModuleList(Conv(deep, fine, (1, 1, 1), norm, padding) for deep, fine in steps)
        self.levels = nn.ModuleList(ResidualBlock(fine, fine, norm, padding) for _, fine in steps)
        self.head = Conv(widths[0], 1, (1, 5, 5), "none", padding)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> (N, 1, D, H, W) logits."""
        x = features[-1]
        for step in reversed(range(len(self.levels))):
            x = _doubled(_elu(self.narrow[step](x))) + features[step]
            x = self.levels[step](x)
        return cast(Tensor, self.head(x))


class ResUNetH(nn.Module):
    """(N, 1, D, H, W) float32 -> (N, 2, D, H, W) probabilities: channel 0 mask, channel 1 instance boundary.

    Height and width are multiples of 16, depth is free.

    Args:
        widths: channels of the five levels, finest first.
        norm: layer after each convolution but the two heads; the published network has none.
        padding: what lies beyond the border; the published network repeats the edge voxel.
    """

    def __init__(
        self, widths: Sequence[int] = PUBLISHED_WIDTHS, norm: Norm = "none", padding: Padding = "replicate"
    ) -> None:
        super().__init__()
        self.widths, self.norm, self.padding = tuple(widths), norm, padding
        self.encoder = Encoder(widths, norm, padding)
        self.top_skip = Conv(widths[0], widths[0], (1, 3, 3), norm, padding)
        self.semantic = Decoder(widths, norm, padding)
        self.boundary = Decoder(widths, norm, padding)

    def logits(self, x: Tensor) -> Tensor:
        """Both outputs before the sigmoid, (N, 2, D, H, W)."""
        features = self.encoder(x)
        features[0] = _elu(self.top_skip(features[0]))
        return torch.cat([self.semantic(features), self.boundary(features)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs as probabilities, (N, 2, D, H, W)."""
        return sigmoid_(self.logits(x))


def _elu(x: Tensor) -> Tensor:
    """In place: x is always the fresh result of a convolution, norm or sum, none of which needs it for its gradient."""
    return elu_(x)


def _doubled(x: Tensor) -> Tensor:
    """Twice the height and width, linear between voxel centres (align_corners=False), depth as it is.

    Trilinear with a depth factor of 1 is bilinear within each slice; the edge voxel counts beyond the border.
    """
    return functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False)
