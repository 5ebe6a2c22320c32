"""A run as a Prefect flow from the command line: a server, the flow, its page, and its end as an error or a report."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flows.server import page_of, prefect_server
from pipeline.config import InstancesConfig, RunConfig
from pipeline.errors import RunCancelled, TeramitoError
from pipeline.job import Job


def run_with_prefect(
    job: Job, settings: RunConfig | InstancesConfig, flow_name: str, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Run a job as the flow of that name; None when it was finished before.

    Raises:
        RunCancelled: Ctrl-C, or cancelled in Prefect; the run is resumable.
        TeramitoError: whatever stopped the flow.
    """
    # Prefect reads these once, when it is imported.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    with prefect_server(job.directory.root / "prefect") as api:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}):
            say(f"Prefect: {page_of(api)}/runs")
            return _run_flow(settings, flow_name)


def _run_flow(settings: RunConfig | InstancesConfig, flow_name: str) -> dict[str, Any] | None:
    from flows import segment

    state = getattr(segment, flow_name)(settings, return_state=True)
    if state.is_cancelled():
        raise RunCancelled(state.message or "cancelled")
    if state.is_completed():
        report: dict[str, Any] | None = state.result()
        return report
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException):
        raise error
    raise TeramitoError(f"the flow ended as {state.name}: {state.message}")
