"""Driving a training without Prefect."""

from __future__ import annotations

from typing import Any

from flows.reports.training import training_report
from flows.terminal.interrupts import interruptible
from pipeline.engine.lock import run_lock
from pipeline.training.record.log import TrainingProgress
from pipeline.training.session import output_of
from pipeline.training.task import TaskConfig, train_task

TRAINING_CANCELLED = "cancelled; the last checkpoint is kept, the same command goes on from it"


def train_bare(config: TaskConfig, progress: TrainingProgress | None) -> dict[str, Any]:
    """Train and return the report, as `training_report` makes it.

    Raises:
        RunCancelled: Ctrl-C or SIGTERM; a checkpoint is kept.
        RunConflict: another process trains in the directory.
        TeramitoError: see `pipeline.training.task.train_task`.
    """
    output = output_of(config)
    with run_lock(output), interruptible(TRAINING_CANCELLED):
        return training_report(train_task(config, progress), output)
