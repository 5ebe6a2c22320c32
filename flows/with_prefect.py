"""A run as a Prefect flow from the command line: a server, the flow, its page, and its end as an error or a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flows.progress import terminal_watcher
from flows.server import page_of, prefect_server
from pipeline.config import InstancesConfig, RunConfig
from pipeline.errors import RunCancelled, TeramitoError
from pipeline.job import Job

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
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with job.opened() as finished:  # refuse a conflict now, not after the server's start
        if finished:
            return None
    with prefect_server(job.directory.root / "prefect") as api:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}):
            try:
                return _run_flow(settings, flow_name, page_of(api), say)
            finally:
                _send_the_rest()


def _run_flow(
    settings: RunConfig | InstancesConfig, flow_name: str, page: str, say: Callable[[str], None]
) -> dict[str, Any] | None:
    from prefect import tags

    from flows import segment
    from flows.stale import host_tag

    def say_page(_flow: Any, run: Any, _state: Any) -> None:
        say(f"Prefect: {page}/runs/flow-run/{run.id}")

    flow = getattr(segment, flow_name).with_options(on_running=[say_page])
    segment.TERMINAL.set(terminal_watcher())
    with tags("teramito", host_tag()):
        state = flow(settings, return_state=True)
    return _end_of(state)


def _end_of(state: Any) -> dict[str, Any] | None:
    if state.is_cancelled():
        raise RunCancelled(state.message or "cancelled")
    if state.is_completed():
        report: dict[str, Any] | None = state.result()
        return report
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
