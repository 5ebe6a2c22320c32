"""The directory of a comparison: its results, which belong to one another, and whether it is one at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import BadInput, RunConflict
from pipeline.evaluation.config import EvaluateConfig
from pipeline.store.files import write_whole

SCORES, MATCHES, SHEET = "scores.json", "matches.parquet", "sheet.png"
SIDES = ("prediction", "truth")


def write_scores(root: Path, scores: Mapping[str, float], config: EvaluateConfig, addresses: Mapping[str, str]) -> None:
    """Store the scores and how they were counted in ``scores.json``: the last file of a result.

    Args:
        root: the directory.
        scores: of instances or of classes.
        config: what was asked for.
        addresses: of prediction and truth, absolute.
    """
    scoring = config.scoring
    counted = {"preset": config.preset, "size_limits": list(scoring.limits), "ignore_below": scoring.ignore_below}
    how = {"classes": True} if config.classes else {"classes": False, **counted}
    write_whole(root / SCORES, json.dumps({**scores, **how, **addresses, "teramito": __version__}, indent=2).encode())


def withdraw(root: Path, classes: bool) -> None:
    """Remove ``scores.json`` until the result it closes is there, and what does not belong to scores of classes."""
    for name in (SCORES, MATCHES, SHEET) if classes else (SCORES,):
        (root / name).unlink(missing_ok=True)


def clear(root: Path) -> None:
    """Remove the blocks and the results of a comparison; what tells that it is one goes last."""
    withdraw(root, classes=True)
    for name in ("ledgers", "tables"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "run.json").unlink()


def is_comparison(root: Path) -> bool:
    """True for the directory of a comparison, of whichever volumes."""
    return set(SIDES) <= _settings(root).keys()


def is_compared(root: Path) -> bool:
    """True for the directory of a comparison whose scores are written."""
    return is_comparison(root) and (root / SCORES).exists()


def require_unchanged_volumes(root: Path, settings: Mapping[str, Any]) -> None:
    """Refuse blocks that were compared before a volume was changed in place.

    Args:
        root: the directory, which may be new or another's.
        settings: of the comparison, as they are in its ``run.json``: for each volume ``address`` and ``file``.

    Raises:
        RunConflict: names each volume that changed and the remedies.
    """
    old = _settings(root)
    changed = [
        f"{side} {settings[side]['address']} ({_files(old[side])} then, {_files(settings[side])} now)"
        for side in SIDES
        if side in old and old[side].get("address") == settings[side]["address"] and old[side] != settings[side]
    ]
    if changed:
        raise RunConflict(
            f"{root}: the blocks compared here are of what was stored then; changed since: {' and '.join(changed)}. "
            "Compare into another --output, or give --again to compare everything here anew."
        )


def require_target(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before there is anything to write.

    Raises:
        BadInput: a folder has that name, or its own folder cannot be written or made.
    """
    if path.is_dir():
        raise BadInput(f"{option} {path}", "it is the name of a file", "a folder is there", "Name a file in it.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"{option} {path}",
            "its folder must be there, or be made, and be writable",
            f"in {folder}: {error.strerror}",
            "Name a file in a folder of yours.",
        ) from None


def _settings(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / "run.json").read_bytes())["settings"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(side: Mapping[str, Any]) -> str:
    file = side.get("file")
    if not isinstance(file, Mapping):
        return "files not recorded"
    return f"{file['files']} files, {file['bytes']} bytes, last written {file['newest']}"
