"""Res-UNet-H as in the paper: one residual encoder, two decoders, one for the mask and one for the instance boundary.

The network of the paper behind the MitoEM2021 challenge's winning entry (Li et al., "Advanced deep networks for 3D
mitochondria instance segmentation", ISBI 2022): the encoder of Res-UNet-R and, for each of the two outputs, a full
decoder of its own. With the published widths (28, 36, 48, 64, 80) and no normalisation it has 2,093,630 parameters, or
2,100,714 with a convolution in the finest skip connection for each decoder; the paper leaves that open. Other widths,
units and a normalisation layer after each convolution are options of our own. Up-sampling is trilinear, as the paper
says; the authors' code has another network under this name, see `resunet_h_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.model.blocks import MULTIPLE, Conv, Style, elu
from pipeline.model.exact import sigmoid_
from pipeline.model.options import PUBLISHED_WIDTHS, Norm, Padding, Unit, Upsampling
from pipeline.model.resunet_r import Decoder, Encoder

DIVISOR = MULTIPLE[2]
"""Height and width of the input are multiples of this: four halvings in the plane."""


class ResUNetH(nn.Module):
    """(N, 1, D, H, W) float32 -> (N, 2, D, H, W) probabilities: channel 0 mask, channel 1 instance boundary.

    Height and width are multiples of 16, depth is free. The arguments are those of `options.ResUNetHOptions`; weights
    start as torch has them.
    """

    multiple = MULTIPLE

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        norm: Norm = "none",
        padding: Padding = "replicate",
        unit: Unit = "acb",
        upsampling: Upsampling = "interpolate",
        top_skip: Literal["shared", "own"] = "shared",
    ) -> None:
        super().__init__()
        style = Style(norm, padding, unit, upsampling)
        self.encoder = Encoder(widths, style)
        self.top_skip = Conv(widths[0], widths[0], (1, 3, 3), style)
        self.semantic = Decoder(widths, 1, style)
        self.boundary = Decoder(widths, 1, style)
        self.boundary_skip = Conv(widths[0], widths[0], (1, 3, 3), style) if top_skip == "own" else None

    def logits(self, x: Tensor) -> Tensor:
        """Both outputs before the sigmoid, (N, 2, D, H, W)."""
        top, *deeper = self.encoder(x)
        mask_skip = elu(self.top_skip(top))
        edge_skip = mask_skip if self.boundary_skip is None else elu(self.boundary_skip(top))
        return torch.cat([self.semantic([mask_skip, *deeper]), self.boundary([edge_skip, *deeper])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both outputs as probabilities, (N, 2, D, H, W)."""
        return sigmoid_(self.logits(x))
