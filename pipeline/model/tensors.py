"""Tensors as a safetensors file, read and written with torch alone, so that training machines need no more.

The format (github.com/huggingface/safetensors): 8 bytes, little-endian, the length of a JSON header; the header, names
to {"dtype", "shape", "data_offsets"}; then the values, dense, row-major, one tensor after another. It can hold no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LENGTH = 8
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name, on the CPU.

    Raises:
        ValueError: the bytes are no such file, or it does not hold exactly the values that its header announces.
    """
    length = int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or length > len(content) - _LENGTH:
        raise ValueError("its header is longer than the file")
    header, values = content[_LENGTH : _LENGTH + length], memoryview(content)[_LENGTH + length :]
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        places = {name: _place(entry) for name, entry in entries.items()}
    except (UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header is not that of tensors ({type(error).__name__}: {error})") from None
    position = 0
    for start, end, *_ in sorted(places.values(), key=lambda place: place[:2]):
        if start != position or end < start:
            raise ValueError("its values do not lie one after another")
        position = end
    if position != len(values):
        raise ValueError(f"it holds {len(values)} bytes of values, its header announces {position}")
    return {name: _tensor(values, *place) for name, place in places.items()}


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these tensors, the same bytes for the same tensors; at most 64 bits a value."""
    header, parts, position = {}, [], 0
    # Widest values first, so that each tensor lies at a multiple of its values' size.
    for name in sorted(state, key=lambda name: (-state[name].element_size(), name)):
        tensor = state[name].detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [position, position + len(raw)]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(raw)
        position += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + b"".join(parts)


def _place(entry: Mapping[str, Any]) -> tuple[int, int, torch.dtype, tuple[int, ...]]:
    start, end = entry["data_offsets"]
    return int(start), int(end), _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])


def _tensor(values: memoryview, start: int, end: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != end - start or min(shape, default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} and {dtype} has {end - start} bytes")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(values[start:end]), dtype=dtype).reshape(shape)
