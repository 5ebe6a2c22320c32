"""Checkpoints from which a killed training goes on as if nothing had happened, and what may have changed meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.errors import BadInput
from pipeline.training.config import TrainingConfig

FILE = "checkpoint.pt"
BEST = "best.pt"
Config = TypeVar("Config", bound=TrainingConfig)

# Of no influence on the weights of a step: what is said, where and on what it is computed, what is looked at.
_FREE = {"output", "description", "validation", "select", "device", "checkpoint_every", "validate_every"}
_FREE |= {"patch", "overlap", "optimiser"}  # the optimiser is compared by `changed_rates`
_SCHEDULE = {"warmup_from", "warmup_steps", "drops", "drop_factor", "decay_steps"}


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


def load(path: Path, kind: type[Config]) -> tuple[dict[str, Any], Config] | None:
    """What is stored and the configuration that its steps had, or None where nothing is stored yet.

    Raises:
        BadInput: it is the checkpoint of another kind of training.
    """
    if not path.is_file():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    try:
        return content, kind.model_validate_json(content["config"])
    except ValueError:
        raise BadInput(
            str(path),
            f"it is the checkpoint of {kind.said}",
            "another kind of network is trained in this directory",
            "Choose another `output`.",
        ) from None


def changed_fields(before: Config, after: Config, free: Set[str] = frozenset()) -> list[str]:
    """The fields that differ, but for those that decide no weights in any training, and `free` ones of this kind."""
    old, new = (config.model_dump(mode="json", exclude=_FREE | free) for config in (before, after))
    return [name for name in old if old[name] != new[name]]


def changed_rates(before: TrainingConfig, after: TrainingConfig, steps: int) -> list[str]:
    """The settings of the optimiser whose change would have altered one of the first `steps` steps.

    The length of a training may change while its learning rate is still on the plateau.
    """
    old, new = (config.optimiser.model_dump(exclude=_SCHEDULE) for config in (before, after))
    changed = [f"optimiser.{name}" for name in old if old[name] != new[name]]
    at_rate = after.optimiser.model_copy(update={"learning_rate": before.optimiser.learning_rate})
    if any(before.rate(step) != at_rate.rate(step, after.steps) for step in range(steps)):
        changed.append("steps, or optimiser's warm-up, drops or decay_steps")
    return changed


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
