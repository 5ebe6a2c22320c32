"""The network's bits depend on its input alone: not on threads, on the batch, or on which convolution code runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.model.blocks import Conv, channel_means
from pipeline.model.exact import elu_, sigmoid_
from pipeline.model.folding import OneDnnConv3d, folded, on_onednn
from pipeline.model.registry import build


@pytest.fixture(autouse=True)
def _one_thread_at_first() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


WIDTHS = (8, 16, 24, 32, 40)
EVERY_NETWORK: list[tuple[str, dict[str, Any]]] = [
    ("resunet-h", {"widths": (2, 3, 4, 5, 6)}),
    ("resunet-h", {"widths": WIDTHS, "padding": "zeros", "top_skip": "own"}),
    ("resunet-r", {"widths": WIDTHS}),
    ("resunet-r", {"widths": (2, 3, 4, 5, 6), "upsampling": "interpolate", "unit": "residual"}),
    ("resunet-r", {"widths": WIDTHS, "unit": "se"}),
    ("resunet-h-code", {"widths": WIDTHS}),
    ("resunet-h-code", {"widths": (2, 3, 4, 5, 6), "unit": "eca"}),
]


def network(architecture: str, options: dict[str, Any]) -> nn.Module:
    """With BatchNorm layers that have seen data, in evaluation mode."""
    torch.manual_seed(0)
    made = build(architecture, {"norm": "batch", **options})
    made.train()(torch.randn(2, 1, 3, 32, 32) * 2 + 1)
    return made.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def sample(*shape: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return values.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("architecture", "options"), EVERY_NETWORK)
def test_any_threads_and_any_batch_give_the_same_bits(architecture: str, options: dict[str, Any]) -> None:
    # The finest maps of a patch are above the 32768 values for which torch starts a thread, and no multiple of it.
    fast, x = on_onednn(folded(network(architecture, options))), sample(2, 1, 5, 48, 112)
    with torch.inference_mode():
        expected = fast(x)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fast(x), expected)
            assert torch.equal(torch.cat([fast(x[i : i + 1]) for i in range(len(x))]), expected)


@pytest.mark.parametrize(("architecture", "options"), EVERY_NETWORK)
def test_folding_and_onednn_keep_the_function_of_every_network(architecture: str, options: dict[str, Any]) -> None:
    plain, x = network(architecture, options), sample(2, 1, 5, 32, 48)
    lean = folded(plain)
    assert not any(isinstance(part, nn.BatchNorm3d) for part in lean.modules())
    with torch.inference_mode():
        assert torch.allclose(lean(x), plain(x), rtol=0, atol=1e-5)
        fast = on_onednn(lean)
        assert all(isinstance(part.conv, OneDnnConv3d) for part in fast.modules() if isinstance(part, Conv))
        assert torch.allclose(fast(x), plain(x), rtol=0, atol=1e-5)


def test_the_means_of_channels_are_means_for_any_number_of_threads() -> None:
    x = sample(2, 5, 7, 48, 112)
    with torch.inference_mode():
        expected = channel_means(x)
        assert torch.allclose(expected.flatten(1), x.double().mean((2, 3, 4)).float(), atol=1e-6)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(channel_means(x), expected)


@pytest.mark.parametrize("shape", [(1, 3), (2, 40_001), (3, 5, 7, 30, 101), (1, 8 * 32768 + 17)])
def test_exact_functions_are_torchs_own_up_to_rounding(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(elu_(x.clone()), functional.elu(x), rtol=0, atol=1e-6)
    assert torch.allclose(sigmoid_(x.clone()), torch.sigmoid(x), rtol=0, atol=1e-6)


def test_exact_functions_have_torchs_gradient() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    elu_(sigmoid_(x) * 2 - 1).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and bool((x.grad != 0).all())
