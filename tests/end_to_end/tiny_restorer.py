"""Tiny restorers, damage and runs with denoising that the tests of whole runs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_run import phantom_values

from pipeline.model.restorer import NETWORKS
from pipeline.model.restorer_spec import RestorerKind
from pipeline.model.tensors import to_bytes
from pipeline.store.volume import open_volume

OPTIONS: Mapping[RestorerKind, dict[str, Any]] = {
    "interpolation": {"widths": [2, 3, 4], "taps": 3},
    "noise2noise": {"width": 3},
}
SHAPE = (20, 64, 64)
FACTOR = (1, 4, 4)
GREY = 0  # of a damaged voxel: as where nothing was imaged


def write_tiny_restorer(folder: Path, kind: RestorerKind = "interpolation", seed: int = 0, **changes: Any) -> Path:
    """A restorer that is nearly the mean of the neighbours, or nearly what random weights make; its .json."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    state = NETWORKS[kind](**OPTIONS[kind]).state_dict()
    content = to_bytes({name: value + 0.02 * torch.randn_like(value) for name, value in state.items()})
    (folder / "restorer.safetensors").write_bytes(content)
    spec = {
        "name": f"tiny-{kind}",
        "kind": kind,
        "options": OPTIONS[kind],
        "multiple": 4 if kind == "interpolation" else 32,
        "patch": (32, 32),
        "overlap": (8, 8),
        "weights": "restorer.safetensors",
        "sha256": sha256(content).hexdigest(),
        **changes,
    }
    (folder / "restorer.json").write_text(json.dumps(spec))
    return folder / "restorer.json"


def damaged_values() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The phantom, the phantom with damage, and the coarse map of it (uint8, nonzero is damaged).

    Whole slices at both ends and inside, a run of two, one of four which is too long, and a region that lies across
    the faces, edges and corner of blocks of 8 x 32 x 32.
    """
    sound = phantom_values(SHAPE)
    flagged = np.zeros([n // f for n, f in zip(SHAPE, FACTOR, strict=True)], np.uint8)
    flagged[[0, 5, 19]] = 1
    flagged[7:9, 5:11, 4:13] = 2
    flagged[12:16, 9:, :4] = 4
    damaged = np.where(flagged.repeat(4, 1).repeat(4, 2) > 0, np.uint8(GREY), sound)
    return sound, damaged, flagged


def whole(path: Path) -> NDArray[Any]:
    """All voxels of a stored volume."""
    volume = open_volume(str(path))
    return volume.read(volume.box)


def denoise(restorer: Path, mask: str | None = None, **changes: Any) -> dict[str, Any]:
    """Settings, as ``tiny_run.settings`` and ``arguments`` take them."""
    given = {"mode": "auto", "model": str(restorer), **({} if mask is None else {"mask": mask}), **changes}
    return {f"denoise.{name}": value for name, value in given.items()}
