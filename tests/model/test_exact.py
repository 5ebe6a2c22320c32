"""The network's bits depend on its input alone: not on threads, on the batch, or on which convolution code runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch.nn import functional

from pipeline.model.exact import elu_, sigmoid_
from pipeline.model.folding import OneDnnConv3d, folded, on_onednn
from pipeline.model.resunet_h import Conv, ResUNetH


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(widths: tuple[int, ...], padding: Literal["replicate", "zeros"] = "replicate") -> ResUNetH:
    torch.manual_seed(0)
    return folded(ResUNetH(widths, "batch", padding).eval()).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def sample(*shape: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return values.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("widths", [(2, 3, 4, 5, 6), (8, 16, 24, 32, 40)])
@pytest.mark.parametrize("shape", [(3, 1, 7, 48, 112), (2, 1, 4, 64, 64)])
def test_any_threads_and_any_batch_give_the_same_bits(widths: tuple[int, ...], shape: tuple[int, ...]) -> None:
    fast, x = on_onednn(network(widths)), sample(*shape)
    with torch.inference_mode():
        torch.set_num_threads(1)
        expected = fast(x)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fast(x), expected)
            assert torch.equal(torch.cat([fast(x[i : i + 1]) for i in range(len(x))]), expected)


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_onednn_gives_what_the_plain_convolutions_give(padding: Literal["replicate", "zeros"]) -> None:
    x = sample(2, 1, 5, 32, 48)
    with torch.inference_mode():
        plain, fast = network((8, 16, 24, 32, 40), padding)(x), on_onednn(network((8, 16, 24, 32, 40), padding))
        assert all(isinstance(part.conv, OneDnnConv3d) for part in fast.modules() if isinstance(part, Conv))
        assert torch.allclose(fast(x), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3), (2, 40_001), (3, 5, 7, 30, 101), (1, 8 * 32768 + 17)])
def test_exact_functions_are_torchs_own_up_to_rounding(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(elu_(x.clone()), functional.elu(x), rtol=0, atol=1e-6)
    assert torch.allclose(sigmoid_(x.clone()), torch.sigmoid(x), rtol=0, atol=1e-6)


def test_exact_functions_have_torchs_gradient() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    elu_(sigmoid_(x) * 2 - 1).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and bool((x.grad != 0).all())
