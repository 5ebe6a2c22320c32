"""Whether a checkpoint's past steps are those of a changed configuration, so that a training may go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.training.checkpoint import require_unchanged
from pipeline.training.segmentation.config import TrainConfig

# Of no influence on the weights of a step: what is said, where and on what it is computed, what is looked at.
_FREE = {"output", "description", "validation", "select", "device", "processes", "compile", "loaders", "ahead"}
_FREE |= {"checkpoint_every", "validate_every", "recalibration_batches", "patch", "overlap"}
# Compared step by step instead, and shards by the number in use.
_FREE |= {"volumes", "stages", "optimiser", "freeze_norm_steps", "shards"}


_SCHEDULE = {"warmup_from", "warmup_steps", "drops", "drop_factor", "decay_steps"}


def load(path: Path, config: TrainConfig, shards: int) -> dict[str, Any] | None:
    """The stored state, or None where there is none yet.

    Raises:
        BadInput: the checkpoint was made by another configuration, in a way that its past steps would differ.
    """
    if not path.is_file():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    before = TrainConfig.model_validate_json(content["config"])
    changed = changed_history(before, config, int(content["step"]))
    if content["shards"] != shards:
        changed.append(f"shards ({content['shards']} before, {shards} now)")
    require_unchanged(path, changed)
    return content


def changed_history(before: TrainConfig, after: TrainConfig, steps: int) -> list[str]:
    """The fields whose change would have altered one of the first `steps` steps.

    The length of the run may change while its learning rate is still on the plateau, and volumes and stages may be
    added that begin later: none touches a step already taken.
    """
    old, new = (config.model_dump(mode="json", exclude=_FREE) for config in (before, after))
    changed = [name for name in old if old[name] != new[name]]
    old, new = (config.optimiser.model_dump(exclude=_SCHEDULE) for config in (before, after))
    changed += [f"optimiser.{name}" for name in old if old[name] != new[name]]
    at_rate = after.optimiser.model_copy(update={"learning_rate": before.optimiser.learning_rate})
    if any(before.rate(step) != at_rate.rate(step, after.steps) for step in range(steps)):
        changed.append("steps, or optimiser's warm-up, drops or decay_steps")
    if any(before.norm_frozen(step) != after.norm_frozen(step) for step in range(steps)):
        changed.append("freeze_norm_steps")
    # At the end of a stage the checkpoint already holds what the next begins with; only a training that was to end
    # there has taken no decision yet, see `TrainingRun`.
    began_otherwise = steps != before.steps and before.begins_from_best(steps) != after.begins_from_best(steps)
    if began_otherwise or any(_sizes(before, step) != _sizes(after, step) for step in range(steps)):
        changed.append("stages")
    if _drawn_from(before, steps) != _drawn_from(after, steps):
        changed.append("volumes")
    return changed


def _sizes(config: TrainConfig, step: int) -> tuple[Any, ...]:
    stage = config.stage(step)
    return stage.crop, stage.batch, stage.start


def _drawn_from(config: TrainConfig, steps: int) -> list[dict[str, Any]]:
    return [volume.model_dump() for volume in config.volumes if volume.from_step < steps]
