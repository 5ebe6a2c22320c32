"""The two volumes of a comparison: which are meant, whether they can be compared, and the state of their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput, raise_all
from pipeline.formats.address import is_remote
from pipeline.geometry import Vec3, vec3
from pipeline.volume import Volume

_BLOCK_VOXELS = 2**23  # as uint64 64 MiB of each volume
_LARGEST_CHUNK = 2**25  # a chunk of more voxels, one strip of a huge page, is read in parts
_METADATA = ("info", "provenance", "zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


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


def stored_files(volume: Volume, without: Path | None = None) -> dict[str, Any] | None:
    """What tells that stored voxels were not touched: size and time of every file of a local volume.

    Args:
        volume: a file, or a folder of any format.
        without: a folder that is left out, because it changes for other reasons.

    Returns:
        ``files`` and ``bytes`` in all, ``newest`` (time of the last change) and a ``digest`` of all names, sizes and
        times (of metadata the content: a run that goes on writes them anew). None for a URL, where this cannot be seen.
    """
    if is_remote(volume.url):
        return None
    files, total, newest, digest = 0, 0, 0, blake2b(digest_size=16)
    for path, status in _files(Path(volume.url), without):
        metadata = path.name in _METADATA
        state = path.read_bytes() if metadata else str(status.st_mtime_ns).encode()
        digest.update(f"{str(path).removeprefix(volume.url)}\0{status.st_size}\0".encode() + state + b"\n")
        files, total, newest = files + 1, total + status.st_size, max(newest, 0 if metadata else status.st_mtime_ns)
    written = datetime.fromtimestamp(newest / 1e9).isoformat(" ", "seconds") if newest else "never"
    return {"files": files, "bytes": total, "newest": written, "digest": digest.hexdigest()}


def block_of(prediction: Volume, truth: Volume) -> Vec3:
    """A block of about 2^23 voxels made of whole chunks of both volumes, where these are powers of each other."""
    extent = prediction.shape
    block = [min(max(p, t), e) for p, t, e in zip(prediction.chunks, truth.chunks, extent, strict=True)]
    while prod(block) > _LARGEST_CHUNK:
        axis = block.index(max(block))
        block[axis] = -(-block[axis] // 2)
    while growing := [axis for axis in range(3) if block[axis] < extent[axis] and 2 * prod(block) <= _BLOCK_VOXELS]:
        axis = min(growing, key=lambda axis: block[axis])
        block[axis] *= 2
    return vec3(min(b, e) for b, e in zip(block, extent, strict=True))


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


def _files(path: Path, without: Path | None) -> Iterator[tuple[Path, os.stat_result]]:
    """The files at or below a path with their states, in the order of their names; links to nothing are left out."""
    if not path.is_dir():
        yield path, path.stat()
        return
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        inner = path / entry.name
        if entry.is_dir() and inner != without:
            yield from _files(inner, without)
        elif entry.is_file():
            yield inner, entry.stat()


def _is_float(volume: Volume) -> bool:
    return np.dtype(volume.dtype).kind not in "bui"


def _not_labels(volume: Volume, why: str) -> BadInput:
    return BadInput(
        str(volume),
        "labels must be whole numbers, 0 for the background and positive for instances",
        why,
        "Threshold a probability map and label it first.",
    )
