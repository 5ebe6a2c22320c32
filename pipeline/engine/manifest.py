"""``run.json``: which run a directory holds, and whether a configuration is that run's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.engine.directory import RunDirectory
from pipeline.errors import RunConflict
from pipeline.store.files import write_whole


def claim(directory: RunDirectory, manifest: Mapping[str, Any]) -> bool:
    """Make a new run directory or recognise the same run in an existing one; True when it was there already.

    Raises:
        RunConflict: see ``recognised``.
    """
    if recognised(directory, manifest):
        return True
    write_whole(directory.manifest, json.dumps(manifest, indent=2).encode())
    return False


def recognised(directory: RunDirectory, manifest: Mapping[str, Any]) -> bool:
    """True when the directory holds this very run, False when it is new or empty; writes nothing.

    Raises:
        RunConflict: it holds a run of another configuration (names the fields) or other files.
    """
    if not directory.manifest.exists():
        others = sorted(entry.name for entry in _entries(directory.root) if not _is_ours(entry.name))
        if others:
            raise RunConflict(
                f"{directory.root}: this directory is not empty and holds no run ({', '.join(others[:5])}). "
                "Choose an empty or a new directory."
            )
        return False
    changes = list(differences(recorded(directory)["settings"], manifest["settings"]))
    if changes:
        raise RunConflict(
            f"{directory.root}: this directory holds a run of another configuration; changed: {'; '.join(changes)}. "
            "Use a new output directory, or go back to the old values to resume."
        )
    return True


def recorded(directory: RunDirectory) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises:
        RunConflict: it was not written by a run.
    """
    try:
        found = json.loads(directory.manifest.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise RunConflict(
            f"{directory.manifest}: this file does not hold the configuration of a run. Choose another directory."
        )
    return found


def _entries(root: Path) -> list[Path]:
    if root.exists() and not root.is_dir():
        raise RunConflict(f"{root}: the output of a run is a directory, and this is a file. Choose another name.")
    return list(root.iterdir()) if root.exists() else []


def _is_ours(name: str) -> bool:
    # What stands in a directory before run.json does; the last is run.json half written, when a run was killed then.
    return name in ("lock", "prefect") or name.startswith(".run.json.")


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """The keys in which two nested mappings differ, as ``key: old -> new``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key}: {old} -> {new}"
