"""What the Res-UNets are built from: convolutions with a border, the four block units, up-sampling.

All take and give (N, C, D, H, W). Depth is never changed; height and width are halved and doubled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.exact import elu_, sigmoid_
from pipeline.model.options import Norm, Padding, Unit, Upsampling

MULTIPLE = (1, 16, 16)
"""What the size of the input is a multiple of, z y x: four halvings in the plane."""
SE_REDUCTION = 4
ECA_TAPS = 3


class Style(NamedTuple):
    """The options that every block of a network shares; see `options.Options`."""

    norm: Norm = "none"
    padding: Padding = "replicate"
    unit: Unit = "acb"
    upsampling: Upsampling = "interpolate"

    def bare(self) -> Style:
        """Without a normalisation layer, as the heads are."""
        return self._replace(norm="none")


class Conv(nn.Module):
    """One convolution that keeps the size (or halves it in the plane), then the optional normalisation.

    Odd kernel; input and output (N, C, D, H, W). The border is padded by hand, so that replicate padding costs one
    copy and zero padding none.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], style: Style, stride: int = 1) -> None:
        super().__init__()
        half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        zeros = half if style.padding == "zeros" else (0, 0, 0)
        self.border = [] if style.padding == "zeros" else [side for size in reversed(half) for side in (size, size)]
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=zeros)
        self.norm = _norm_layer(style.norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H/stride, W/stride)."""
        if any(self.border):
            x = functional.pad(x, self.border, mode="replicate")
        return cast(Tensor, self.norm(self.conv(x)))

    def added(self) -> nn.Parameter:
        """The bias, one value an output channel."""
        assert self.conv.bias is not None  # every convolution here has one
        return cast(nn.Parameter, self.conv.bias)


class PartialConv(Conv):
    """A 3x3x3 partial convolution (Liu et al. 2018) whose only holes lie beyond the border, then the normalisation.

    There the kernel's sum is scaled up by 27 / (taps inside the volume), before the bias is added; inside the volume
    it is a plain convolution.
    """

    def __init__(self, inputs: int, outputs: int, style: Style) -> None:
        super().__init__(inputs, outputs, (3, 3, 3), style._replace(padding="zeros"))
        self.bias = nn.Parameter(self.added().detach())
        self.conv.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H, W)."""
        y = self.conv(x)
        depth, height, width = (_taps(size, y) for size in x.shape[2:])
        share = 27.0 / (depth[:, None, None] * height[:, None] * width)
        return cast(Tensor, self.norm(y.mul_(share).add_(self.bias.to(y.dtype)[:, None, None, None])))

    def added(self) -> nn.Parameter:
        """The bias, which is not the convolution's own here."""
        return self.bias if "bias" in self._parameters else super().added()


def _taps(size: int, like: Tensor) -> Tensor:
    """How many of three taps centred on each of `size` voxels lie among them."""
    taps = torch.full((size,), 3.0, dtype=like.dtype, device=like.device)
    taps[0] -= 1
    taps[-1] -= 1
    return taps


def _norm_layer(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    return nn.Identity()


class AnisotropicBlock(nn.Module):
    """ACB: conv 1x3x3, ELU; then conv 3x3x3, ELU, conv 3x3x3 around a shortcut; ELU.

    The shortcut is the identity, or a 1x1x1 convolution (`projected`).
    """

    def __init__(self, inputs: int, outputs: int, style: Style, projected: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, (1, 3, 3), style)
        self.second = Conv(outputs, outputs, (3, 3, 3), style)
        self.third = Conv(outputs, outputs, (3, 3, 3), style)
        self.shortcut = Conv(outputs, outputs, (1, 1, 1), style) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H, W)."""
        x = elu(self.first(x))
        return elu(self.third(elu(self.second(x))) + self.shortcut(x))


class PlainBlock(nn.Module):
    """Plain residual: conv 3x3x3, ELU, conv 3x3x3, optional attention, around a shortcut; ELU.

    The shortcut is the identity, or a 1x1x1 convolution where the number of channels changes (or `projected`).
    """

    def __init__(self, inputs: int, outputs: int, style: Style, projected: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, (3, 3, 3), style)
        self.second = Conv(outputs, outputs, (3, 3, 3), style)
        self.attention = _ATTENTION[style.unit](outputs)
        projected = projected or inputs != outputs
        self.shortcut = Conv(inputs, outputs, (1, 1, 1), style) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, D, H, W) -> (N, outputs, D, H, W)."""
        return elu(self.attention(self.second(elu(self.first(x)))) + self.shortcut(x))


class SqueezeExcitation(nn.Module):
    """Channels scaled by a two-layer function of the means of all channels (Hu et al. 2018).

    The inner layer has a quarter of the channels (theirs a sixteenth, of far more channels).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // SE_REDUCTION)
        self.squeeze = Conv(channels, inner, (1, 1, 1), Style())
        self.excite = Conv(inner, channels, (1, 1, 1), Style())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) -> the same shape."""
        return x * sigmoid_(self.excite(functional.relu(self.squeeze(channel_means(x)))))


class EfficientAttention(nn.Module):
    """Channels scaled by the sigmoid of a convolution of three taps over the channel means (ECA, Wang et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.empty(ECA_TAPS).uniform_(-(ECA_TAPS**-0.5), ECA_TAPS**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) -> the same shape."""
        channels, half = x.shape[1], ECA_TAPS // 2
        means = functional.pad(channel_means(x), (0, 0, 0, 0, 0, 0, half, half))
        # Shifted products: a sum over a dimension may be taken in another order with more threads.
        mixed = self.taps[0] * means[:, :channels]
        for tap in range(1, ECA_TAPS):
            mixed = mixed + self.taps[tap] * means[:, tap : tap + channels]
        return x * sigmoid_(mixed)


def channel_means(x: Tensor) -> Tensor:
    """(N, C, D, H, W) -> (N, C, 1, 1, 1); the same bits for any number of threads, unlike `Tensor.mean`.

    Pooling sums each output voxel in one thread; axis by axis, so that float32 adds up a few hundred values at most.
    """
    depth, height, width = x.shape[2:]
    for window in ((1, 1, width), (1, height, 1), (depth, 1, 1)):
        x = functional.avg_pool3d(x, window)
    return x


def _no_attention(channels: int) -> nn.Module:
    return nn.Identity()


_ATTENTION: dict[Unit, Callable[[int], nn.Module]] = {
    "residual": _no_attention,
    "se": SqueezeExcitation,
    "eca": EfficientAttention,
}


def block(inputs: int, outputs: int, style: Style, projected: bool = False) -> nn.Module:
    """The block of one level, of the unit that the style names."""
    kind = AnisotropicBlock if style.unit == "acb" else PlainBlock
    return kind(inputs, outputs, style, projected)


def elu(x: Tensor) -> Tensor:
    """In place: x is always the fresh result of a convolution, norm or sum, none of which needs it for its gradient."""
    return elu_(x)


def doubled(x: Tensor, upsampling: Upsampling) -> Tensor:
    """Twice the height and width, linear between voxel centres (align_corners=False), depth as it is.

    Trilinear with a depth factor of 1 is bilinear within each slice. "interpolate" repeats the edge voxel beyond the
    border. "transposed" equals the depthwise transposed convolution with the kernel (.25, .75, .75, .25) in y and x,
    stride 2 and padding 1, where zeros lie beyond the border: the outermost rows and columns are 0.75 of the others.
    """
    x = functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False)
    return attenuated(x) if upsampling == "transposed" else x


def attenuated(x: Tensor) -> Tensor:
    """The outermost rows and columns times 0.75, in place."""
    for edge in (x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]):
        edge.mul_(0.75)
    return x
