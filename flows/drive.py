"""Driving a job from its first step to its verified report, with or without Prefect around the steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flows.terminal.interrupts import interruptible
from flows.terminal.pace import Watcher
from pipeline.engine.executor import Executor
from pipeline.engine.step import run_step
from pipeline.run.job import Job
from pipeline.run.verify import require_verified, write_report
from workers.cluster import open_executor

_CANCELLED = "cancelled; finished blocks are kept, the same command resumes"
# Calls one named piece of work; Prefect makes a task of it.
Wrap = Callable[[str, Callable[[], None]], None]


def call(_name: str, work: Callable[[], None]) -> None:
    """The plainest ``Wrap``: just do it."""
    work()


def drive(job: Job, executor: Executor, watcher: Watcher | None, wrap: Wrap = call) -> dict[str, Any]:
    """Run every step that is not done, verify, and write the report; the job's directory must be held.

    Raises:
        StageFailed: blocks failed, or verification found something missing.
    """
    for number, step in enumerate(job.steps):
        wrap(step.name, partial(run_step, job.directory, step, executor, watcher, job.steps[:number]))
    wrap("verify", lambda: require_verified(job.steps, job.directory))
    return write_report(job.directory, job.facts, job.steps)


def run_bare(job: Job, watcher: Watcher | None) -> dict[str, Any] | None:
    """Run a job without Prefect; None when it was finished before.

    Raises:
        RunCancelled: Ctrl-C or SIGTERM; finished blocks are kept.
    """
    with job.opened() as finished:
        if finished:
            return None
        with interruptible(_CANCELLED), open_executor(job.cluster) as executor:
            return drive(job, executor, watcher)
