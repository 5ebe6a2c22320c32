"""Driving a job from its first step to its verified report, with or without Prefect around the steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flows.progress import Watcher
from pipeline.errors import RunCancelled
from pipeline.executor import Executor
from pipeline.job import Job
from pipeline.run import run_step
from pipeline.verify import require_verified, write_report
from workers.cluster import open_executor

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
    for step in job.steps:
        wrap(step.name, lambda step=step: run_step(job.directory, step, executor, watcher))  # type: ignore[misc]
    wrap("verify", lambda: require_verified(job.steps, job.directory))
    return write_report(job.directory, job.facts)


def run_bare(job: Job, watcher: Watcher | None) -> dict[str, Any] | None:
    """Run a job without Prefect; None when it was finished before.

    Raises:
        RunCancelled: Ctrl-C or SIGTERM; finished blocks are kept.
    """
    with job.opened() as finished:
        if finished:
            return None
        with interruptible(), open_executor(job.cluster) as executor:
            return drive(job, executor, watcher)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM (a batch system's, a Prefect worker's) into RunCancelled inside this context."""
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise RunCancelled("cancelled; finished blocks are kept, the same command resumes") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
