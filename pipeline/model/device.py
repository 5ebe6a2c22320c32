"""Which device computes: what a configuration asks for, held against what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import BadInput

if TYPE_CHECKING:
    import torch


def picked_device(device: str) -> str:
    """``auto`` as ``cuda`` where torch sees a GPU, else ``cpu``; anything else as it is."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(asked: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for; the first GPU.

    Raises:
        BadInput: cuda where there is none.
    """
    import torch

    if picked_device(asked) == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BadInput("device: cuda", "torch must see a GPU", "it sees none here", "Take device: auto or cpu.")
    return torch.device("cuda", 0)
