"""The flows for Prefect deployments: ``deploy/prefect.yaml`` names them, ``python -m flows.deployment`` serves them.

A process that serves waits for runs started from Prefect's pages or API and runs each in a process of its own, with the
server in ``PREFECT_API_URL``. A cancelled run gets SIGTERM, ends as Cancelled and resumes when started again.
"""

from __future__ import annotations

from typing import Any, cast

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment

from flows.segment import instances_from_maps, segment_volume
from flows.training import train_network

TAGS = ["teramito"]
FLOWS: tuple[Flow[..., Any], ...] = (segment_volume, instances_from_maps, train_network)


def serve_flows(limit: int = 1) -> None:
    """Serve the flows from this machine until interrupted.

    Args:
        limit: runs at the same time; each uses all of the machine, so more than one rarely helps.
    """
    serve(*(_deployment(flow) for flow in FLOWS), limit=limit)


def _deployment(flow: Flow[..., Any]) -> RunnerDeployment:
    return cast(RunnerDeployment, flow.to_deployment(flow.name, description=flow.description, tags=TAGS))


if __name__ == "__main__":
    serve_flows()
