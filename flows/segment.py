"""The Prefect flow: one task a stage in the driver, progress and result as artifacts. Blocks are plain Dask tasks.

Thousands of Prefect tasks stall its server and its pages (prefect issues 8934, 12877, 18883), and a task on a Dask
worker starts a server of its own there: so Prefect sees stages, Dask sees blocks.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.drive import drive, interruptible
from flows.progress import Pace, Watcher
from flows.report import markdown_of
from pipeline.config import InstancesConfig, RunConfig
from pipeline.errors import RunCancelled
from pipeline.job import Job, instances_job, run_job
from workers.cluster import open_executor

ARTIFACT_SECONDS = 2.0  # an artifact update costs about 16 ms
CANCEL_POLL_SECONDS = 2.0


@flow(name="segment-volume", persist_result=False, validate_parameters=True)
def segment_volume(config: RunConfig) -> Any:
    """A volume to mitochondria instances: predict, label, stitch, grow, relabel, export, verify."""
    job, _plan = run_job(config)
    return _run(job)


@flow(name="instances-from-maps", persist_result=False, validate_parameters=True)
def instances_from_maps(config: InstancesConfig) -> Any:
    """Two stored probability maps to instances."""
    return _run(instances_job(config))


def _run(job: Job) -> Any:
    """The report of the job, or the Cancelled state."""
    logger = get_run_logger()
    for warning in job.warnings:
        logger.warning(warning)
    with job.opened() as finished:
        if finished:
            logger.info("%s is finished; nothing to do", job.directory.root)
            return None
        try:
            with interruptible(), _cancellable(), open_executor(job.cluster) as executor:
                report = drive(job, executor, _artifact_watcher(), _as_task)
        except RunCancelled as cancelled:
            return Cancelled(message=str(cancelled))
    create_markdown_artifact(markdown_of(job, report), key="teramito-result", description=str(job.directory.root))
    return report


def _as_task(name: str, work: Callable[[], None]) -> None:
    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def stage() -> None:
        get_run_logger().info("%s starts", name)
        work()
        get_run_logger().info("%s is done", name)

    stage()


def _artifact_watcher() -> Watcher:
    """Progress as one artifact a stage, with the time left."""
    artifacts: dict[str, UUID] = {}

    def show(pace: Pace) -> None:
        if pace.stage not in artifacts:
            made = create_progress_artifact(pace.percent, f"progress-{pace.stage}", str(pace))
            artifacts[pace.stage] = cast(UUID, made)
        else:
            update_progress_artifact(artifacts[pace.stage], pace.percent, str(pace))

    return Watcher(show, ARTIFACT_SECONDS)


@contextmanager
def _cancellable() -> Iterator[None]:
    """Interrupt the driver when somebody cancels this flow run in Prefect, also in the middle of a long block."""
    stop = threading.Event()
    context = FlowRunContext.get()
    if context is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    # A thread starts with an empty context, and the address of the server stands in the context.
    watch = partial(copy_context().run, _watch, UUID(str(flow_run.id)), stop)
    watching = threading.Thread(target=watch, daemon=True, name="cancel-watch")
    watching.start()
    try:
        yield
    finally:
        stop.set()
        watching.join()


def _watch(run_id: UUID, stop: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not stop.wait(CANCEL_POLL_SECONDS):
            state = client.read_flow_run(run_id).state
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                _thread.interrupt_main()
                return
