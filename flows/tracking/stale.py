"""Flow runs that a killed driver left behind as Running."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Crashed

_LOG = logging.getLogger(__name__)


def host_tag() -> str:
    """The tag that says on which machine a run's driver is."""
    return f"host:{socket.gethostname()}"


def close_stale_runs(directory: Path) -> None:
    """Mark the other unfinished flow runs of this directory on this machine as crashed; the caller holds its lock.

    Whoever holds the lock is the only driver there, so none of them can be alive.
    """
    unfinished = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])),
        tags=FlowRunFilterTags(all_=[host_tag()]),
    )
    crashed: Any = Crashed(message="its driver was killed; a later run of the same directory resumed it")
    try:
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=unfinished):
                if run.id != UUID(str(flow_run.id)) and _directory_of(run.parameters) == directory:
                    client.set_flow_run_state(run.id, crashed, force=True)
    except httpx.HTTPError as error:
        _LOG.warning("earlier runs of %s could not be looked up: %s", directory, error)


def _directory_of(parameters: dict[str, Any]) -> Path | None:
    config = parameters.get("config")
    return Path(config["output"]).expanduser().absolute() if isinstance(config, dict) and "output" in config else None
