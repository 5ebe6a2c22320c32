"""Checkpoints from which a killed run goes on as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import BadInput

FILE = "checkpoint.pt"
BEST = "best.pt"


def save(path: Path, content: dict[str, Any]) -> None:
    """Write beside, then rename: a kill or a full disk at any moment leaves the previous checkpoint whole."""
    beside = path.with_suffix(".partial")
    try:
        with beside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)


def require_unchanged(path: Path, changed: Sequence[str]) -> None:
    """Refuse to go on from a checkpoint where fields have changed that its past steps depended on.

    Raises:
        BadInput: there are such fields.
    """
    if changed:
        raise BadInput(
            f"{path}: {', '.join(changed)}",
            "a run is resumed with the configuration that its past steps had",
            "the result would follow from neither configuration",
            "Restore these fields, or choose another `output`.",
        )


def load_best(path: Path) -> dict[str, Any]:
    """The best average and its step.

    Raises:
        BadInput: there is none; a training without validation went on with a stage that starts from it.
    """
    if not path.is_file():
        raise BadInput(
            "stages.start: best",
            "a stage that is added to a training starts from the best weights of those before",
            f"they were not validated: there is no {path}",
            "Take start: last.",
        )
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content
