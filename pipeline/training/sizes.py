"""Sizes of crops and patches that a network cannot take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.errors import BadInput, raise_all

_AXES = {2: "y and x", 3: "z, y and x"}


def require_multiples(sizes: Iterable[tuple[str, tuple[int, ...]]], multiple: Sequence[int]) -> None:
    """Refuse sizes that are no multiples of what a network needs in each axis.

    Args:
        sizes: names of fields and their sizes, (z, y, x) or (y, x).
        multiple: in the same axes.

    Raises:
        BadInput: there are such sizes; each once.
    """
    wrong = [one for one in dict.fromkeys(sizes) if any(n % m for n, m in zip(one[1], multiple, strict=True))]
    raise_all([_misfit(name, size, multiple) for name, size in wrong])


def _misfit(name: str, size: tuple[int, ...], multiple: Sequence[int]) -> BadInput:
    nearest = [max(m, round(n / m) * m) for n, m in zip(size, multiple, strict=True)]
    return BadInput(
        f"{name} {list(size)}",
        f"it is a multiple of {multiple[0] if len(set(multiple)) == 1 else list(multiple)} in {_AXES[len(size)]}",
        "the network needs it so",
        f"The nearest legal {name} is {nearest}.",
    )
