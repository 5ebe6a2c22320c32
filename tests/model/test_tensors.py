"""Our safetensors files are safetensors files, and broken ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save

from pipeline.model.tensors import from_bytes, to_bytes

STATE = {
    "weight": torch.randn(3, 1, 2, 5, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([[1.5, -2.0]], dtype=torch.float16),
    "brain": torch.tensor([0.1, 3.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False, True]),
    "nothing": torch.zeros(0, 4),
    "größe": torch.arange(5, dtype=torch.uint8),
}


def require_same(found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(STATE)
    for name, value in STATE.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_what_is_written_comes_back() -> None:
    require_same(from_bytes(to_bytes(STATE)))


def test_the_library_reads_what_is_written_here_and_the_other_way_round() -> None:
    require_same(load(to_bytes(STATE)))
    require_same(from_bytes(save(STATE, {"format": "pt"})))


def test_the_same_tensors_give_the_same_bytes_in_any_order_and_layout() -> None:
    turned = {name: STATE[name] for name in reversed(STATE)}
    turned["weight"] = STATE["weight"].to(memory_format=torch.channels_last)
    assert to_bytes(turned) == to_bytes(STATE)


def with_header(header: object, values: bytes = b"12345678") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 40,
        to_bytes(STATE)[:-1],
        to_bytes(STATE) + b"x",
        with_header([1, 2]),
        with_header({"a": 1}),
        with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}),
        with_header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
        with_header({"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}),
        with_header({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        with_header({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}),
    ],
)
def test_a_broken_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|values|bytes"):
        from_bytes(content)


def test_networks_load_with_torch_numpy_pydantic_and_safetensors_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('scipy', 'cc3d', 'zarr', 'tifffile'): sys.modules[name] = None\n"
        "import numpy, pipeline.model.authors\n"
        "from pipeline.model.load import load_model\n"
        "print(load_model('mito-v1').predict(numpy.zeros((1, 1, 1, 16, 16), numpy.float32)).shape)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(1, 2, 1, 16, 16)"
