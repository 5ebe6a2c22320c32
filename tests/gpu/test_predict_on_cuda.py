"""The networks on a real GPU; needs torch, numpy, pydantic and safetensors alone, and skips without CUDA."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.grid import BlockGrid  # noqa: E402
from pipeline.model.load import load_model  # noqa: E402
from pipeline.model.registry import build  # noqa: E402
from pipeline.model.spec import ModelSpec  # noqa: E402
from pipeline.model.tensors import to_bytes  # noqa: E402
from pipeline.predict.op import PredictOp  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
SHAPE = (10, 48, 64)
EVERY_NETWORK = [
    ("resunet-r", {"unit": "acb"}),
    ("resunet-r", {"unit": "se", "norm": "batch"}),
    ("resunet-h", {"unit": "eca", "top_skip": "own"}),
    ("resunet-h-code", {"unit": "acb"}),
]


def random_model(folder, architecture, options):
    """Path of a model with random weights that tell dark from bright."""
    torch.manual_seed(0)
    options = {"widths": [8, 12, 16, 16, 16], **options}
    state = build(architecture, options).state_dict()
    for name in [name for name in state if name.endswith("head.conv.weight")]:
        state[name] *= 20
    content = to_bytes(state)
    (folder / "random.safetensors").write_bytes(content)
    spec = ModelSpec(
        name="random",
        architecture=architecture,
        options=options,
        voxel_size_nm=(10.0, 10.0, 10.0),
        weights="random.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    (folder / "random.json").write_text(spec.model_dump_json())
    return str(folder / "random.json")


def raw():
    smooth = np.random.default_rng(0).normal(size=SHAPE)
    for axis in range(3):
        smooth = smooth + np.roll(smooth, 1, axis) + np.roll(smooth, 2, axis)
    return np.clip(128 + 20 * smooth, 1, 255).astype(np.uint8)


def normalise(grey):
    return (grey / np.float32(255)).astype(np.float32)


def maps(device, block=SHAPE, batch=2, name="mito-v1"):
    op = PredictOp(SHAPE, (1, 1, 1), (8, 32, 32), (2, 8, 8), "bump", batch)
    model = load_model(name, device)
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
@pytest.mark.parametrize(("architecture", "options"), EVERY_NETWORK)
def test_the_gpu_gives_the_cpu_maps_with_every_network(tmp_path, architecture, options):
    name = random_model(tmp_path, architecture, options)
    found, expected = maps("cuda", name=name), maps("cpu", name=name)
    assert np.ptp(expected) > 10
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize(("architecture", "options"), EVERY_NETWORK)
def test_blocks_do_not_show_with_any_network_on_the_cpu(tmp_path, architecture, options):
    name = random_model(tmp_path, architecture, options)
    whole = maps("cpu", name=name)
    assert np.ptp(whole) > 10
    np.testing.assert_array_equal(maps("cpu", (6, 20, 64), name=name), whole)


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
