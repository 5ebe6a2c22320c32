"""Driving a training without Prefect."""

from __future__ import annotations

from typing import Any

from flows.interrupts import interruptible
from flows.training_report import training_report
from pipeline.lock import run_lock
from pipeline.training.log import Progress
from pipeline.training.task import TaskConfig, train_task
from pipeline.training.train import output_of

CANCELLED = "cancelled; the last checkpoint is kept, the same command goes on from it"


def train_bare(config: TaskConfig, progress: Progress | None) -> dict[str, Any]:
    """Train and return the report, as `training_report` makes it.

    Raises:
        RunCancelled: Ctrl-C or SIGTERM; a checkpoint is kept.
        RunConflict: another process trains in the directory.
        TeramitoError: see `pipeline.training.task.train_task`.
    """
    output = output_of(config)
    with run_lock(output), interruptible(CANCELLED):
        return training_report(train_task(config, progress), output)
