"""The interpolation network against the published figures, and against its layers written down once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.cost import parameters
from pipeline.model.interpolation import InterpolationNet

# Four levels: the fewest with every kind of layer on the way up.
NARROW = ((4, 6, 8, 10), 7)


def network(widths: tuple[int, ...] = NARROW[0], taps: int = NARROW[1], trained: bool = True) -> InterpolationNet:
    """`trained`: with heads that no longer are a delta."""
    torch.manual_seed(0)
    made = InterpolationNet(widths, taps)
    if trained:
        for head in (*made.vertical, *made.horizontal):
            torch.nn.init.orthogonal_(head[-1].weight)
    return made.eval()


def pair(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_the_published_network_has_the_published_number_of_parameters_less_those_of_the_copies_of_each_slice() -> None:
    with torch.device("meta"):
        made = InterpolationNet()
    # Published: 21,602,256 that take part. Its first convolution takes 6 channels to 6, ours 2 to 6, both 3 x 3:
    # (6 - 2) * 6 * 9 = 216 weights fewer.
    assert parameters(made) == 21_602_256 - 216 == 21_602_040
    # A head: twice 64 to 64, then 64 to 51 and 51 to 51.
    head = 2 * (64 * 64 * 9 + 64) + (64 * 51 * 9 + 51) + (51 * 51 * 9 + 51)
    assert [parameters(part) for part in (*made.vertical, *made.horizontal)] == [head] * 4
    assert made.multiple == 32


def test_the_published_network_costs_what_is_published() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        made, x = InterpolationNet(), torch.empty(1, 2, 256, 256)
        features = made.features(x)
        for head in (*made.vertical, *made.horizontal):
            assert head(features).shape == (1, 51, 256, 256)
    # The narrower stem saves 216 products and sums a pixel of 256 x 256.
    assert counter.get_total_flops() / 1e9 == pytest.approx(45.74 - 2 * 216 * 256**2 / 1e9, rel=1e-3)


def test_the_network_is_the_published_one_with_each_slice_taken_three_times() -> None:
    made, x = network(), pair(2, 2, 32, 48)
    assert torch.allclose(made(x), published(made, x), rtol=0, atol=1e-5)


def published(made: InterpolationNet, x: Tensor) -> Tensor:
    """The network as its authors have it, in plain functions: 6 channels in, the mean of three colours out."""
    state = iter(made.state_dict().values())
    weights = [(next(state), next(state)) for _ in range(len(made.state_dict()) // 2)]
    first, bias = weights[0]
    share = pair(6, 3, 2, 3, 3).softmax(1)  # any weights of the copies with the sum that ours has
    weights[0] = ((first[:, None] * share).transpose(1, 2).flatten(1, 2), bias)
    layers = iter(weights)

    def conv(y: Tensor) -> Tensor:
        return functional.relu(functional.conv2d(y, *next(layers), padding=1))

    def module(y: Tensor) -> Tensor:
        return conv(conv(conv(y)))

    def up(y: Tensor) -> Tensor:
        return functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)

    colours = x.repeat_interleave(3, dim=1)
    levels = [module(colours)]
    for _ in made.features.levels[1:]:
        levels.append(module(functional.avg_pool2d(levels[-1], 2)))
    # The state dict has the ways up from the finest; the network takes them from the deepest.
    rises = {number: [next(layers) for _ in range(1 if number == 2 else 4)] for number in (1, 2)}
    heads = list(layers)
    layers = iter(rises[2] + rises[1] + heads)
    y = conv(up(levels[3])) + levels[2]
    y = conv(up(module(y))) + levels[1]
    kernels = []
    for _ in range(4):
        kernels.append(functional.conv2d(up(module(y)), *next(layers), padding=1))
    outputs = [locally(colours[:, 3 * side :][:, :3], kernels[side], kernels[2 + side]) for side in range(2)]
    return sum(outputs).mean(1, keepdim=True)  # type: ignore[union-attr]


def locally(colours: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    taps, (height, width) = vertical.shape[1], colours.shape[2:]
    padded = functional.pad(colours, (taps // 2,) * 4, mode="replicate")
    result = torch.zeros_like(colours)
    for i in range(taps):
        for j in range(taps):
            result += padded[:, :, i : i + height, j : j + width] * (vertical[:, i] * horizontal[:, j])[:, None]
    return result


@pytest.mark.parametrize(("widths", "taps"), [NARROW, ((16, 32), 15), ((8, 16, 24, 32, 32), 21), ((32, 64, 128), 51)])
def test_an_untrained_network_is_the_mean_of_the_neighbours_to_a_grey_level(widths: tuple[int, ...], taps: int) -> None:
    made = network(widths, taps, trained=False)
    for x in (pair(1, 2, 64, 64), torch.ones(1, 2, 64, 64)):
        with torch.inference_mode():
            assert torch.allclose(made(x), x.mean(1, keepdim=True), rtol=0, atol=1 / 255)


def test_the_fraction_weights_the_two_parts_by_nearness() -> None:
    made, x = network(), pair(2, 2, 16, 16)
    parts, fraction = made.parts(x), pair(2, 1, 16, 16)
    assert torch.equal(made(x), parts[:, :1] + parts[:, 1:])
    assert torch.equal(made(x, 0.0), 2 * parts[:, :1])
    assert torch.equal(made(x, 1.0), 2 * parts[:, 1:])
    expected = 2 * (1 - fraction) * parts[:, :1] + 2 * fraction * parts[:, 1:]
    assert torch.allclose(made(x, fraction), expected, rtol=0, atol=1e-6)


def test_with_delta_kernels_it_is_the_line_between_the_neighbours_seen_from_either_end() -> None:
    made, x, fraction = network(trained=False), pair(2, 2, 16, 16), pair(2, 1, 16, 16)
    for head in (*made.vertical, *made.horizontal):
        torch.nn.init.zeros_(head[-1].weight)
    line = (1 - fraction) * x[:, :1] + fraction * x[:, 1:]
    assert torch.allclose(made(x, fraction), line, rtol=0, atol=1e-6)
    assert torch.allclose(made(x.flip(1), 1 - fraction), line, rtol=0, atol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
def test_every_parameter_gets_a_gradient(trained: bool) -> None:
    made, x = network((8, 12, 16, 16), 7, trained).train(), pair(2, 2, 32, 32)
    (made(x) - 0.3).square().mean().backward()
    assert [name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("widths", [(4, 6), (4, 6, 8), (4, 6, 8, 8, 8)])
def test_any_number_of_levels_takes_the_sizes_that_it_names(widths: tuple[int, ...]) -> None:
    made = network(widths, 5)
    assert made.multiple == 2 ** (len(widths) - 1)
    assert made(pair(1, 2, made.multiple, 3 * made.multiple)).shape == (1, 1, made.multiple, 3 * made.multiple)
