"""Which device computes: what was asked for, held against what is there. Only asking for one loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import BadInput

if TYPE_CHECKING:
    import torch


def device_of(asked: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for, or any other that torch has a name for.

    ``auto`` is ``cuda`` where torch sees a GPU, else ``cpu``; ``cuda`` is the first GPU.

    Raises:
        BadInput: cuda where there is none.
    """
    import torch

    sees_gpu = torch.cuda.is_available()
    device = torch.device(("cuda" if sees_gpu else "cpu") if asked == "auto" else asked)
    if device.type != "cuda":
        return device
    if not sees_gpu:
        raise BadInput(f"device: {asked}", "torch must see a GPU", "it sees none here", "Take device: auto or cpu.")
    return torch.device("cuda", device.index or 0)
