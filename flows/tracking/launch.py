"""A run as a Prefect flow from the command line: a server, the flow, its page, and its end as an error or a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from flows.terminal.progress import terminal_watcher
from flows.tracking.server import page_of, prefect_server
from pipeline.errors import RunCancelled, TeramitoError
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.job import Job

if TYPE_CHECKING:
    from pipeline.training.record.log import TrainingProgress
    from pipeline.training.task import TaskConfig

SEND_SECONDS = 10.0
# Prefect reads these once, when it is imported. Its console log would repeat our own messages with tracebacks; the
# pages show all of it.
ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


def run_with_prefect(
    job: Job, settings: RunConfig | InstancesConfig, flow_name: str, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Run a job as the flow of that name; None when it was finished before.

    Raises:
        RunCancelled: Ctrl-C, or cancelled in Prefect; the run is resumable.
        RunConflict: another process works in the directory, or it holds another configuration.
        TeramitoError: whatever stopped the flow.
    """
    watcher = terminal_watcher(steps=job.steps)

    def flow() -> Any:
        from flows import segment

        segment.TERMINAL.set(watcher)
        segment.PLANNED.set(job)
        return getattr(segment, flow_name)

    with job.opened() as finished:  # refuse a conflict now, not after the server's start
        if finished:
            return None
    with watcher:
        report: dict[str, Any] | None = run_flow(flow, settings, job.directory.root / "prefect", say)
    return report


def train_with_prefect(config: TaskConfig, progress: TrainingProgress, say: Callable[[str], None]) -> dict[str, Any]:
    """Train as a flow; returns its report.

    Raises:
        BadInput: the configuration cannot be trained.
        RunCancelled: Ctrl-C, or cancelled in Prefect; the training is resumable.
        RunConflict: another process trains in the directory.
        TeramitoError: whatever stopped the flow.
    """
    from pipeline.engine.lock import run_lock
    from pipeline.training.session import output_of
    from pipeline.training.task import require_startable

    output = output_of(config)
    with run_lock(output):  # refuse now, not after the server's start
        require_startable(config)

    def flow() -> Any:
        from flows import training

        training.TERMINAL.set(progress)
        return training.train_network

    settings = config.model_copy(update={"output": str(output)})
    report: dict[str, Any] = run_flow(flow, settings, output / "prefect", say)
    return report


def run_flow(flow: Callable[[], Any], settings: BaseModel, home: Path, say: Callable[[str], None]) -> Any:
    """Run a flow with the server in ``PREFECT_API_URL``, or with one of its own.

    Args:
        flow: imports the flow and returns it; called once Prefect may be imported.
        settings: its only parameter, ``config``.
        home: data of a server of its own.
        say: is told the address of the run's page.

    Raises:
        RunCancelled: Ctrl-C, or cancelled in Prefect.
        TeramitoError: whatever stopped the flow.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with prefect_server(home) as api:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}):
            try:
                return _end_of(_state_of(flow(), settings, page_of(api), say))
            finally:
                _send_the_rest()


def _state_of(flow: Any, settings: BaseModel, page: str, say: Callable[[str], None]) -> Any:
    from prefect import tags

    from flows.tracking.stale import host_tag

    def say_page(_flow: Any, run: Any, _state: Any) -> None:
        say(f"Prefect: {page}/runs/flow-run/{run.id}")

    with tags("teramito", host_tag()):
        return flow.with_options(on_running=[say_page])(settings, return_state=True)


def _end_of(state: Any) -> Any:
    if state.is_cancelled():
        raise RunCancelled(state.message or "cancelled")
    if state.is_completed():
        return state.result()
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException):
        raise error
    raise TeramitoError(f"the flow ended as {state.name}: {state.message}")


def _send_the_rest() -> None:
    """Send what Prefect still holds back in this process (logs, task states) while there is a server to take it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        service.drain_all(timeout=SEND_SECONDS)
