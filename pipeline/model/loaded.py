"""A trained network in memory: its weights checked and parsed, loaded once per process and device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.device import device_of
from pipeline.model.pinned import PinnedSpec
from pipeline.model.tensors import from_bytes

_Spec = TypeVar("_Spec", bound=PinnedSpec)
_Network = TypeVar("_Network", bound="LoadedNetwork")  # type: ignore[type-arg]


@dataclass(frozen=True)
class LoadedNetwork(Generic[_Spec]):
    """A network ready for inference, on its device; may be called from several threads."""

    spec: _Spec
    network: nn.Module
    device: torch.device


class Once(Generic[_Network]):
    """Loads each specification once a device; every later call in this process gives the same object.

    Args:
        path_of: the specification of a shipped name or a path.
        load: reads the specification at a path, for a device.
    """

    def __init__(self, path_of: Callable[[str | Path], Path], load: Callable[[Path, torch.device], _Network]) -> None:
        self._path_of, self._load = path_of, load
        self._loaded: dict[tuple[Path, torch.device], _Network] = {}
        self._one_at_a_time = threading.Lock()

    def __call__(self, name_or_path: str | Path, device: str) -> _Network:
        """The network of a shipped name or of a .json specification, on ``auto``, ``cpu`` or ``cuda``.

        Raises:
            BadInput: unknown name, no such device, or what loading raises.
        """
        key = (self._path_of(name_or_path).resolve(), device_of(device))
        with self._one_at_a_time:
            if key not in self._loaded:
                self._loaded[key] = self._load(*key)
            return self._loaded[key]


def checked_tensors(specification: Path, spec: PinnedSpec) -> dict[str, Tensor]:
    """The weights beside a specification; the hash is taken of the very bytes that are then parsed.

    Raises:
        BadInput: weights missing, of another sha256 than the specification's, or not safetensors.
    """
    content = spec.weights_beside(specification)
    try:
        return from_bytes(content)
    except ValueError as error:
        raise BadInput(
            str(specification.parent / spec.weights),
            "weights are a safetensors file",
            f"this is none ({error}); a pickle could run any code",
            "Convert them: safetensors.torch.save_file(state_dict, path).",
        ) from error
