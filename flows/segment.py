"""The Prefect flow: one task a step in the driver, progress and result as artifacts. Blocks are plain Dask tasks.

Thousands of Prefect tasks stall its server and its pages (prefect issues 8934, 12877, 18883), and a task on a Dask
worker starts a server of its own there: so Prefect sees steps, Dask sees blocks.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.artifacts import ArtifactWatcher
from flows.drive import drive, interruptible
from flows.progress import Watcher
from flows.report import markdown_of
from flows.stale import close_stale_runs
from pipeline.config import InstancesConfig, RunConfig
from pipeline.errors import RunCancelled
from pipeline.executor import Executor, Progress
from pipeline.job import Job, instances_job, run_job
from pipeline.ledger import Ledger
from pipeline.stage import Stage
from workers.cluster import open_executor

CANCEL_POLL_SECONDS = 2.0
CANCELLED = "cancelled; finished blocks are kept, the same run resumes"
# What a person at a terminal sees beside Prefect's pages; none where a Prefect worker runs the flow.
TERMINAL: ContextVar[Watcher | None] = ContextVar("TERMINAL", default=None)
LOG = logging.getLogger(__name__)


def _run_name() -> str:
    """A flow run is called what its directory is called."""
    config = flow_run.parameters.get("config", {})
    output = config["output"] if isinstance(config, dict) else config.output
    return Path(output).name or "run"


@flow(name="segment-volume", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
def segment_volume(config: RunConfig) -> Any:
    """A volume to mitochondria instances: predict, label, stitch, grow, relabel, export, verify.

    The same output directory again resumes; a finished one returns at once.
    """
    job, _plan = run_job(config)
    return _run(job)


@flow(name="instances-from-maps", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
def instances_from_maps(config: InstancesConfig) -> Any:
    """Two stored probability maps to instances: label, stitch, grow, relabel, export, verify.

    The same output directory again resumes; a finished one returns at once.
    """
    return _run(instances_job(config))


def _run(job: Job) -> Any:
    """The report of the job, or the Cancelled state."""
    logger = get_run_logger()
    for warning in job.warnings:
        logger.warning(warning)
    with job.opened() as finished:
        if finished:
            logger.info("%s is finished and verified; nothing to do", job.directory.root)
            return None
        close_stale_runs(job.directory.root)
        try:
            report = _driven(job)
        except RunCancelled as cancelled:
            return Cancelled(message=str(cancelled))
    create_markdown_artifact(markdown_of(job, report), key="teramito-result", description=str(job.directory.root))
    logger.info("%s instances in %s, complete and verified", report["instances"], job.directory.precomputed)
    return report


def _driven(job: Job) -> dict[str, Any]:
    watcher = ArtifactWatcher(job.steps, job.directory.root.name)
    with interruptible(), _cancellable(), open_executor(job.cluster) as executor:
        _show_dashboard(executor)
        report = drive(job, executor, _Both(watcher, TERMINAL.get()), _as_task)
    watcher.finished()
    return report


class _Both(Watcher):
    """Two watchers of the same run; the second may be missing."""

    def __init__(self, first: Watcher, second: Watcher | None) -> None:
        self._watchers = [watcher for watcher in (first, second) if watcher is not None]

    def __call__(self, step: str, stage: Stage) -> Progress:
        """Watch one stage of a step."""
        each = [watcher(step, stage) for watcher in self._watchers]

        def progress(ledger: Ledger) -> None:
            for one in each:
                one(ledger)

        return progress


def _as_task(name: str, work: Callable[[], None]) -> None:
    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def step() -> Any:
        get_run_logger().info("%s starts", name)
        try:
            work()
        except KeyboardInterrupt:  # see interruptible(): Prefect would show a crash
            return Cancelled(message=CANCELLED)
        get_run_logger().info("%s is done", name)
        return None

    state = step(return_state=True)
    if state.is_cancelled():
        raise RunCancelled(CANCELLED)
    state.result()  # raises what the step raised


def _show_dashboard(executor: Executor) -> None:
    """A link to the page on which Dask shows its blocks, where there is one."""
    link = getattr(getattr(executor, "client", None), "dashboard_link", None)
    if link:
        create_link_artifact(link, "Dask's dashboard: every block", key="dask-dashboard", description="Blocks at work")


@contextmanager
def _cancellable() -> Iterator[None]:
    """Interrupt the driver when somebody cancels this flow run in Prefect, also in the middle of a long block."""
    if FlowRunContext.get() is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = threading.Event()
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
            try:
                state = client.read_flow_run(run_id).state
            except httpx.HTTPError as error:
                LOG.warning("whether this run was cancelled could not be asked: %s", error)
                continue
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                # A signal that wakes the main thread from whatever it waits for; SIGINT may be ignored (nohup, &).
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return
