"""Tensors to the bytes of a safetensors file and back, by the package of that name; such a file can hold no code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# What networks here compute with. The format has more types, which would be cut or rounded when they are copied.
_TYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}) | frozenset(
    {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
)


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name, on the CPU.

    Raises:
        ValueError: the bytes are no such file, it does not hold exactly the values that its header announces, or they
            are of a type that no network here has; one line.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise ValueError(f"its header does not describe the bytes after it: {' '.join(str(error).split())}") from None
    except KeyError as error:
        raise ValueError(f"it holds values of the type {error}, which torch does not read") from None
    _require_known(tensors.values())
    return tensors


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these tensors, the same bytes for the same tensors in any order and memory layout.

    Tensors that share memory, as tied weights do, are written one by one.

    Raises:
        ValueError: values of a type that `from_bytes` would refuse.
    """
    from safetensors.torch import save

    _require_known(state.values())
    # Each in memory of its own: the package refuses tensors that share theirs.
    own = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    content: bytes = save(own)
    return content


def _require_known(tensors: Iterable[Tensor]) -> None:
    foreign = sorted({str(tensor.dtype) for tensor in tensors if tensor.dtype not in _TYPES})
    if foreign:
        raise ValueError(f"it holds values of the type {', '.join(foreign)}, which no network here has")
