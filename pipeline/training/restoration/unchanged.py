"""Whether a checkpoint's past steps are those of a changed configuration, so that a training may go on from it."""

from __future__ import annotations

from pipeline.training.checkpoint import changed_fields, changed_rates
from pipeline.training.restoration.config import RestorationConfig

# Of no influence on the weights of a step; their number is compared through the learning rate.
_FREE = {"voxel_size_nm", "unsharp", "steps"}


def changed_history(before: RestorationConfig, after: RestorationConfig, steps: int) -> list[str]:
    """The fields whose change would have altered one of the first `steps` steps."""
    return changed_fields(before, after, _FREE) + changed_rates(before, after, steps)
