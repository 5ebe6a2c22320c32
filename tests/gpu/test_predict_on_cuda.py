"""The network on a real GPU; needs torch and numpy alone, and skips without CUDA."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.grid import BlockGrid  # noqa: E402
from pipeline.model.load import load_model  # noqa: E402
from pipeline.ops.predict import PredictOp  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
SHAPE = (10, 48, 64)


def raw():
    smooth = np.random.default_rng(0).normal(size=SHAPE)
    for axis in range(3):
        smooth = smooth + np.roll(smooth, 1, axis) + np.roll(smooth, 2, axis)
    return np.clip(128 + 20 * smooth, 1, 255).astype(np.uint8)


def normalise(grey):
    return (grey / np.float32(255)).astype(np.float32)


def maps(device, block=SHAPE, batch=2):
    op = PredictOp(SHAPE, (1, 1, 1), (8, 32, 32), (2, 8, 8), "bump", batch)
    model = load_model("mito-starter", device)
    out = np.zeros((2, *SHAPE), np.uint8)
    for piece in BlockGrid(SHAPE, block):
        read = op.read_box(piece.core)
        semantic, boundary, _ = op(raw()[read.slices()], read, piece.core, normalise, model)
        out[(0, *piece.core.slices())], out[(1, *piece.core.slices())] = semantic, boundary
    return out


@needs_cuda
def test_the_gpu_gives_the_cpu_maps_to_two_grey_levels():
    assert np.abs(maps("cuda").astype(int) - maps("cpu").astype(int)).max() <= 2


@needs_cuda
def test_blocks_do_not_show_on_the_gpu():
    np.testing.assert_array_equal(maps("cuda", (6, 20, 64)), maps("cuda"))


@pytest.mark.parametrize("block", [(6, 20, 64), (10, 48, 40)])
def test_blocks_do_not_show_with_the_shipped_network_on_the_cpu(block):
    np.testing.assert_array_equal(maps("cpu", block), maps("cpu"))


def test_one_and_two_threads_give_the_same_bits():
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(maps("cpu"))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
