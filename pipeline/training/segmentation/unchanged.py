"""Whether a checkpoint's past steps are those of a changed configuration, so that a training may go on from it."""

from __future__ import annotations

from typing import Any

from pipeline.training.checkpoint import changed_fields, changed_rates
from pipeline.training.segmentation.config import TrainConfig

# Of no influence on the weights of a step.
_FREE = {"processes", "compile", "loaders", "ahead", "recalibration_batches"}
# Compared step by step instead, and shards by the number in use.
_FREE |= {"volumes", "stages", "freeze_norm_steps", "shards"}


def changed_history(before: TrainConfig, after: TrainConfig, steps: int) -> list[str]:
    """The fields whose change would have altered one of the first `steps` steps.

    Volumes and stages may be added that begin later: they touch no step already taken.
    """
    changed = changed_fields(before, after, _FREE) + changed_rates(before, after, steps)
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
