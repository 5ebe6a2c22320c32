"""What every flow of ours does with its work: one task a step, and an end when somebody cancels it in Prefect."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from pipeline.errors import RunCancelled

_T = TypeVar("_T")
CANCEL_POLL_SECONDS = 2.0
_LOG = logging.getLogger(__name__)


def run_name() -> str:
    """A flow run is called what its output directory is called."""
    config = flow_run.parameters.get("config", {})
    output = config["output"] if isinstance(config, dict) else config.output
    return Path(output).name or "run"


def as_task(name: str, work: Callable[[], _T], cancelled: str) -> _T:
    """Do a piece of work as a Prefect task and return what it returns.

    Args:
        name: of the task.
        work: may raise RunCancelled, or KeyboardInterrupt inside `interruptible`.
        cancelled: what the task's state says after the latter.

    Raises:
        RunCancelled: the work was cancelled; whatever else the work raises is raised too.
    """

    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def step() -> Any:
        get_run_logger().info("%s starts", name)
        try:
            result = work()
        except KeyboardInterrupt:  # see interruptible(): Prefect would show a crash
            return Cancelled(message=cancelled)
        except RunCancelled as stopped:  # and a failure here
            return Cancelled(message=str(stopped))
        get_run_logger().info("%s is done", name)
        return result

    state = step(return_state=True)
    if state.is_cancelled():
        raise RunCancelled(state.message or cancelled)
    return cast(_T, state.result())  # raises what the step raised


@contextmanager
def cancellable() -> Iterator[None]:
    """Send SIGTERM to the driver when somebody cancels this flow run in Prefect, also in the middle of long work."""
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
                _LOG.warning("whether this run was cancelled could not be asked: %s", error)
                continue
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                # A signal that wakes the main thread from whatever it waits for; SIGINT may be ignored (nohup, &).
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return
