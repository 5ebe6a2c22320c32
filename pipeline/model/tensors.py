"""Tensors as a safetensors file (github.com/huggingface/safetensors), which can hold no code."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name, on the CPU.

    Raises:
        ValueError: the bytes are no such file, or it does not hold exactly the values that its header announces.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(content))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header and values do not fit ({type(error).__name__}: {error})") from None


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these tensors, the same bytes for the same tensors in any order and memory layout."""
    from safetensors.torch import save

    content: bytes = save({name: state[name].detach().cpu().contiguous() for name in sorted(state)})
    return content
