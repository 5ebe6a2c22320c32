"""What tells that an input is still the same, and how that becomes a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.store.formats.address import is_remote
from pipeline.store.volume import Volume

_METADATA = ("info", "provenance", "zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


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


def identity(volume: Volume) -> dict[str, Any]:
    """What tells that an input is still the same: shape, dtype, geometry and, for local files, size and time."""
    facts = {key: value for key, value in asdict(volume).items() if key not in ("url", "path", "chunks", "notes")}
    return json.loads(json.dumps({**facts, "file": _file_state(volume)}))  # type: ignore[no-any-return]


def source_fingerprint(volume: Volume) -> str:
    """The fingerprint of an input."""
    return digest({"url": str(volume), **identity(volume)})


def mask_identity(volume: Volume) -> dict[str, Any]:
    """The same of a mask, which people mend in place: of a local folder also number, bytes and newest time of files."""
    path = Path(volume.url)
    if is_remote(volume.url) or not path.is_dir():
        return identity(volume)
    states = [entry.stat() for entry in path.rglob("*") if entry.is_file()]
    newest = max((state.st_mtime_ns for state in states), default=0)
    return {**identity(volume), "files": [len(states), sum(state.st_size for state in states), newest]}


def _file_state(volume: Volume) -> list[int]:
    if is_remote(volume.url):
        return []
    path = Path(volume.url)
    for name in ("info", "zarr.json", ".zarray", ".zgroup"):
        if (path / name).exists():
            path = path / name
            break
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def digest(parts: Mapping[str, Any]) -> str:
    """The fingerprint of a JSON-able mapping: 16 hex digits of the sha256 of its canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
