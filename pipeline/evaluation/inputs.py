"""The two volumes of a comparison: which are meant, whether they can be compared, and the state of their files."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import Vec3, vec3
from pipeline.store.formats.address import is_remote
from pipeline.store.volume import Volume

_BLOCK_VOXELS = 2**23  # as uint64 64 MiB of each volume
_LARGEST_CHUNK = 2**25  # a chunk of more voxels, one strip of a huge page, is read in parts


def segmentation_of(address: str) -> str:
    """The segmentation of a run where the address is a run's directory, the address itself anywhere else.

    ``RUN`` is ``RUN/precomputed/segmentation`` or, where that is not exported, ``RUN/arrays/segmentation``; a crop of
    it stays a crop.
    """
    text, bracket, crop = address.rpartition("[") if address.rstrip().endswith("]") else (address, "", "")
    root = Path(text).expanduser()
    if is_remote(text) or not (root / "run.json").is_file() or not (root / "arrays").is_dir():
        return address
    exported = root / "precomputed" / "segmentation"
    return f"{exported if exported.is_dir() else root / 'arrays' / 'segmentation'}{bracket}{crop}"


def full_address(volume: Volume, given: str) -> str:
    """An address that names the same voxels from any folder, with a crop where one was given."""
    crop = volume.box.shifted(volume.origin) if given.rstrip().endswith("]") else ""
    return f"{volume}{crop}"


def block_of(prediction: Volume, truth: Volume) -> Vec3:
    """A block of about 2^23 voxels made of whole chunks of both volumes, where these are powers of each other."""
    extent = prediction.shape
    block = [*prediction.chunks.max(truth.chunks).min(extent)]
    while prod(block) > _LARGEST_CHUNK:
        axis = block.index(max(block))
        block[axis] = -(-block[axis] // 2)
    while growing := [axis for axis in range(3) if block[axis] < extent[axis] and 2 * prod(block) <= _BLOCK_VOXELS]:
        axis = min(growing, key=lambda axis: block[axis])
        block[axis] *= 2
    return extent.min(vec3(block))


def require_comparable(prediction: Volume, truth: Volume) -> None:
    """Refuse volumes of different shapes and volumes of floating-point numbers.

    Raises:
        BadInput: names both, or all offenders at once.
    """
    problems = [_not_labels(volume, f"it holds {volume.dtype}") for volume in (prediction, truth) if _is_float(volume)]
    if prediction.shape != truth.shape:
        problems.append(
            BadInput(
                f"prediction {prediction} of shape {prediction.shape} and truth {truth} of shape {truth.shape}",
                "both must have one shape",
                "they are compared voxel by voxel",
                "Crop the larger one, or compare at the same resolution.",
            )
        )
    raise_all(problems)


def negative(volume: Volume, ids: Any) -> list[BadInput]:
    """What is wrong with ids that were negative before they became unsigned."""
    found = ids[ids >= 2**63].astype(np.int64) if np.dtype(volume.dtype).kind == "i" else ids[:0]
    return [_not_labels(volume, f"it holds the value {found.min()}")] if len(found) else []


def _is_float(volume: Volume) -> bool:
    return np.dtype(volume.dtype).kind not in "bui"


def _not_labels(volume: Volume, why: str) -> BadInput:
    return BadInput(
        str(volume),
        "labels must be whole numbers, 0 for the background and positive for instances",
        why,
        "Threshold a probability map and label it first.",
    )
