"""A U-Net that removes noise from one slice; learns from pairs of noisy slices, without clean ones.

Lehtinen et al., "Noise2Noise: learning image restoration without clean data", ICML 2018, in the form of the public
implementation for electron microscopy by Tan (transposed convolutions on the way up). With the published width of 48 it
has 1,341,553 parameters.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.restorer_spec import NOISE2NOISE_POOLINGS, NOISE2NOISE_WIDTH

SLOPE = 0.1


class Noise2NoiseNet(nn.Module):
    """(N, 1, H, W) float32 of 0..1 -> (N, 1, H, W), about 0..1, not clipped; H and W are multiples of 32.

    Five levels of `width` channels down, of twice that up, the last two convolutions of 4/3 and 2/3 of it. He weights,
    biases 0, as published. The argument is that of `restorer_spec.Noise2NoiseOptions`.
    """

    channels = 1
    multiple = 2**NOISE2NOISE_POOLINGS

    def __init__(self, width: int = NOISE2NOISE_WIDTH) -> None:
        super().__init__()
        wide = 2 * width
        down = [_convolutions(1, width, width), *(_convolutions(width, width) for _ in range(NOISE2NOISE_POOLINGS - 1))]
        inputs = [width + wide] * (NOISE2NOISE_POOLINGS - 2) + [width + width]
        self.down = nn.ModuleList(down)
        self.bottom = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), _doubling(width))
        self.up = nn.ModuleList(nn.Sequential(_convolutions(count, wide, wide), _doubling(wide)) for count in inputs)
        self.last = _convolutions(1 + wide, 4 * width // 3, 2 * width // 3)
        self.head = nn.Conv2d(2 * width // 3, 1, 3, padding=1)
        _he(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> the same shape."""
        skipped = [x]
        for level in self.down:
            skipped.append(functional.max_pool2d(level(skipped[-1]), 2))
        y = self.bottom(skipped.pop())
        for level in reversed(self.up):
            y = level(torch.cat([y, skipped.pop()], dim=1))
        return cast(Tensor, self.head(self.last(torch.cat([y, skipped.pop()], dim=1))))


def as_convolution(source: nn.ConvTranspose2d) -> nn.Sequential:
    """The same function of (N, C, H, W) as an ordinary convolution: each input pixel gives its four output pixels.

    torch's transposed convolution rounds otherwise for another batch or number of threads (1e-6; torch 2.13, AVX-512).
    An even output row takes the middle row of the kernel; an odd one the last, and the first on the next input row.
    """
    inputs, outputs = source.weight.shape[:2]
    kernel = source.weight.new_zeros(outputs, 2, 2, inputs, 2, 2)  # out, parity y x, in, tap y x
    for (odd_y, tap_y, y), (odd_x, tap_x, x) in product(((0, 0, 1), (1, 0, 2), (1, 1, 0)), repeat=2):
        kernel[:, odd_y, odd_x, :, tap_y, tap_x] = source.weight.detach()[:, :, y, x].T
    convolution = nn.Conv2d(inputs, 4 * outputs, 2)
    convolution.weight = nn.Parameter(kernel.reshape(4 * outputs, inputs, 2, 2))
    convolution.bias = nn.Parameter(cast(Tensor, source.bias).detach().repeat_interleave(4))
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), convolution, nn.PixelShuffle(2))


def _convolutions(*channels: int) -> nn.Sequential:
    """3x3 convolutions from each number of channels to the next, zeros beyond the border, a leaky ReLU after each."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*layers)


def _doubling(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)


def _he(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, SLOPE)
            nn.init.zeros_(cast(Tensor, module.bias))
