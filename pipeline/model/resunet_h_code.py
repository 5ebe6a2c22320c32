"""Res-UNet-H as in the authors' code (`RSUNet`), which segmented the human volume of the MitoEM2021 challenge.

It shares the idea of the paper's Res-UNet-H (one encoder, two decoders) and little else: widths 16, 32, 48, 64, 80; two
partial 3x3x3 convolutions as the stem; max-pooling; zeros beyond the border; up-sampling before the 1x1x1 convolution
by a fixed transposed convolution, and an ELU after the sum; 1x3x3 heads. 1,852,610 parameters. Other widths, units, a
normalisation layer after each convolution and up-sampling by interpolation are options of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.blocks import MULTIPLE, Conv, PartialConv, Style, block, doubled, elu
from pipeline.model.exact import sigmoid_
from pipeline.model.options import CODE_WIDTHS, Norm, Unit, Upsampling


class Encoder(nn.Module):
    """Two partial convolutions and five levels; max-pooling halves height and width in between, never depth."""

    def __init__(self, widths: Sequence[int], style: Style) -> None:
        super().__init__()
        top = widths[0]
        self.stem = nn.ModuleList([PartialConv(1, top, style), PartialConv(top, top, style)])
        self.levels = nn.ModuleList(
            block(widths[max(level - 1, 0)], width, style) for level, width in enumerate(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1, D, H, W) -> the features of every level, finest first."""
        for conv in self.stem:
            x = elu(conv(x))
        features = [self.levels[0](x)]
        for level in list(self.levels)[1:]:
            features.append(level(functional.max_pool3d(features[-1], (1, 2, 2))))
        return features


class Decoder(nn.Module):
    """From the deepest features back to full size, adding the encoder's features, to one channel of logits."""

    def __init__(self, widths: Sequence[int], style: Style) -> None:
        super().__init__()
        self.upsampling = style.upsampling
        steps = list(zip(widths[1:], widths[:-1], strict=True))
        self.narrow = nn.ModuleList(Conv(deep, fine, (1, 1, 1), style) for deep, fine in steps)
        self.levels = nn.ModuleList(block(fine, fine, style) for _, fine in steps)
        self.head = Conv(widths[0], 1, (1, 3, 3), style.bare())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> (N, 1, D, H, W) logits."""
        x = features[-1]
        for step in reversed(range(len(self.levels))):
            x = elu(self.narrow[step](doubled(x, self.upsampling)) + features[step])
            x = self.levels[step](x)
        return cast(Tensor, self.head(x))


class ResUNetHCode(nn.Module):
    """(N, 1, D, H, W) float32 -> (N, 2, D, H, W) probabilities: channel 0 mask, channel 1 instance boundary.

    Height and width are multiples of 16, depth is free. Weights start as He et al. draw them (normal, fan in), biases
    at zero, as published. The arguments are those of `options.ResUNetHCodeOptions`.
    """

    multiple = MULTIPLE

    def __init__(
        self,
        widths: Sequence[int] = CODE_WIDTHS,
        norm: Norm = "none",
        unit: Unit = "acb",
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        style = Style(norm, "zeros", unit, upsampling)
        self.encoder = Encoder(widths, style)
        self.semantic = Decoder(widths, style)
        self.boundary = Decoder(widths, style)
        for module in self.modules():
            if isinstance(module, Conv):
                nn.init.kaiming_normal_(module.conv.weight)
                nn.init.zeros_(module.added())

    def logits(self, x: Tensor) -> Tensor:
        """Both outputs before the sigmoid, (N, 2, D, H, W)."""
        features = self.encoder(x)
        return torch.cat([self.semantic(features), self.boundary(features)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs as probabilities, (N, 2, D, H, W)."""
        return sigmoid_(self.logits(x))
