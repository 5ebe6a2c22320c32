"""Weights are safetensors files, those of earlier versions too, and broken ones are refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from pipeline.model.restorer_spec import RESTORERS
from pipeline.model.spec import SHIPPED
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


def test_a_file_that_an_earlier_version_wrote_is_read() -> None:
    content = bytes.fromhex("6801000000000000") + (
        b'{"count":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        b'"nothing":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]},'
        b'"weight":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},'
        b'"brain":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},'
        b'"half":{"dtype":"F16","shape":[1],"data_offsets":[18,20]},'
        b'"flag":{"dtype":"BOOL","shape":[2],"data_offsets":[20,22]}}    '
        + bytes.fromhex("07000000000000000000c03f000000c0404000380100")
    )
    found = from_bytes(content)
    assert {name: value.tolist() for name, value in found.items()} == {
        "count": 7,
        "nothing": [],
        "weight": [[1.5, -2.0]],
        "brain": [3.0],
        "half": [0.5],
        "flag": [True, False],
    }
    assert found["nothing"].shape == (0, 4)
    assert (found["brain"].dtype, found["half"].dtype) == (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    "path", [*SHIPPED.glob("*.safetensors"), *RESTORERS.glob("*.safetensors")], ids=lambda p: p.stem
)
def test_shipped_weights_are_written_again_byte_for_byte(path: Path) -> None:
    content = path.read_bytes()
    assert to_bytes(from_bytes(content)) == content


def test_tied_weights_are_written_one_by_one() -> None:
    tied = torch.arange(6.0)
    found = from_bytes(to_bytes({"first": tied, "second": tied, "turned": tied.reshape(2, 3).t()}))
    assert found["first"].tolist() == found["second"].tolist() == tied.tolist()
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


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
        with_header({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}),
        with_header({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}),
        with_header({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}),
    ],
)
def test_a_broken_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|values|bytes") as refused:
        from_bytes(content)
    assert "\n" not in str(refused.value)


def test_values_that_would_not_be_read_again_are_not_written() -> None:
    with pytest.raises(ValueError, match=r"values of the type torch\.complex64"):
        to_bytes({"a": torch.zeros(2, dtype=torch.complex64)})


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
