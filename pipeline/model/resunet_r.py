"""Res-UNet-R: one residual encoder, one decoder with two output channels.

The network with which the winning entry of the MitoEM2021 challenge segmented the rat volume (Li et al., "Advanced deep
networks for 3D mitochondria instance segmentation", ISBI 2022; `unet_residual_3d` in the authors' code). With the
published widths (28, 36, 48, 64, 80) it has 1,547,758 parameters that take part in the output. Other widths, units, a
normalisation layer after each convolution and up-sampling by interpolation are options of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from pipeline.model.blocks import MULTIPLE, Conv, Style, block, doubled, elu
from pipeline.model.exact import sigmoid_
from pipeline.model.options import PUBLISHED_WIDTHS, Norm, Padding, Unit, Upsampling


class Encoder(nn.Module):
    """Stem and five levels; each next level halves height and width by a strided convolution, never depth."""

    def __init__(self, widths: Sequence[int], style: Style) -> None:
        super().__init__()
        self.stem = Conv(1, widths[0], (1, 5, 5), style)
        self.downs = nn.ModuleList([Conv(width, width, (1, 3, 3), style, stride=2) for width in widths[:-1]])
        last = len(widths) - 1
        self.levels = nn.ModuleList(
            block(widths[max(level - 1, 0)], width, style, projected=level == last)
            for level, width in enumerate(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1, D, H, W) -> the features of every level, finest first."""
        features = [self.levels[0](elu(self.stem(x)))]
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            features.append(level(elu(down(features[-1]))))
        return features


class Decoder(nn.Module):
    """From the deepest features back to full size, adding the encoder's features, to `outputs` channels of logits."""

    def __init__(self, widths: Sequence[int], outputs: int, style: Style) -> None:
        super().__init__()
        self.upsampling = style.upsampling
        steps = list(zip(widths[1:], widths[:-1], strict=True))
        self.narrow = nn.ModuleList(Conv(deep, fine, (1, 1, 1), style) for deep, fine in steps)
        self.levels = nn.ModuleList(block(fine, fine, style) for _, fine in steps)
        self.head = Conv(widths[0], outputs, (1, 5, 5), style.bare())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> (N, outputs, D, H, W) logits."""
        x = features[-1]
        for step in reversed(range(len(self.levels))):
            x = doubled(elu(self.narrow[step](x)), self.upsampling) + features[step]
            x = self.levels[step](x)
        return cast(Tensor, self.head(x))


class ResUNetR(nn.Module):
    """(N, 1, D, H, W) float32 -> (N, 2, D, H, W) probabilities: channel 0 mask, channel 1 instance boundary.

    Height and width are multiples of 16, depth is free. Weights start orthogonal, biases as torch has them, as
    published. The arguments are those of `options.ResUNetROptions`.
    """

    multiple = MULTIPLE

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        norm: Norm = "none",
        padding: Padding = "replicate",
        unit: Unit = "acb",
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        style = Style(norm, padding, unit, upsampling)
        self.encoder = Encoder(widths, style)
        self.top_skip = Conv(widths[0], widths[0], (1, 3, 3), style)
        self.decoder = Decoder(widths, 2, style)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.orthogonal_(module.weight)

    def logits(self, x: Tensor) -> Tensor:
        """Both outputs before the sigmoid, (N, 2, D, H, W)."""
        features = self.encoder(x)
        features[0] = elu(self.top_skip(features[0]))
        return cast(Tensor, self.decoder(features))

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs as probabilities, (N, 2, D, H, W)."""
        return sigmoid_(self.logits(x))
