"""The denoising network against the published figures, and against its layers written down once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.cost import parameters
from pipeline.model.noise2noise import Noise2NoiseNet, as_convolution


def noisy(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(Noise2NoiseNet()) == 1_341_553


def test_the_network_is_its_published_layers() -> None:
    torch.manual_seed(0)
    made, x = Noise2NoiseNet(6), noisy(2, 1, 32, 64)
    assert torch.allclose(made(x), published(made, x), rtol=0, atol=1e-5)


def published(made: Noise2NoiseNet, x: Tensor) -> Tensor:
    values = list(made.state_dict().values())
    layers = list(zip(values[::2], values[1::2], strict=True))
    down, bottom, up, last = layers[:6], layers[6:8], layers[8:20], layers[20:]

    def conv(y: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
        return functional.leaky_relu(functional.conv2d(y, *layer, padding=1), 0.1)

    def doubled(y: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
        return functional.conv_transpose2d(y, *layer, stride=2, padding=1, output_padding=1)

    pooled = [functional.max_pool2d(conv(conv(x, down[0]), down[1]), 2)]
    for layer in down[2:]:
        pooled.append(functional.max_pool2d(conv(pooled[-1], layer), 2))
    y = doubled(functional.conv2d(pooled[4], *bottom[0], padding=1), bottom[1])
    for level in (3, 2, 1, 0):  # the state dict has the finest first
        y = torch.cat([y, pooled[level]], 1)
        y = doubled(conv(conv(y, up[3 * level]), up[3 * level + 1]), up[3 * level + 2])
    y = torch.cat([y, x], 1)
    return functional.conv2d(conv(conv(y, last[0]), last[1]), *last[2], padding=1)


def test_it_starts_with_he_weights_and_no_bias() -> None:
    torch.manual_seed(0)
    made = Noise2NoiseNet()
    wide = made.get_parameter("up.0.0.2.weight")  # 96 channels to 96
    assert wide.std().item() == pytest.approx((2 / 1.01 / (96 * 9)) ** 0.5, rel=0.02)
    assert not any(value.any() for name, value in made.named_parameters() if name.endswith("bias"))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    made, x = Noise2NoiseNet(6), noisy(2, 1, 64, 64)
    (made(x) - x).square().mean().backward()
    assert [name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_a_doubling_is_the_same_as_an_ordinary_convolution() -> None:
    torch.manual_seed(0)
    doubling = nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1)
    x = noisy(2, 3, 7, 10)
    assert torch.allclose(as_convolution(doubling)(x), doubling(x), rtol=0, atol=1e-6)
