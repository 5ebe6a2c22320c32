"""Opening the workers a configuration asks for, and giving them back."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin
from distributed.system import MEMORY_LIMIT

from pipeline.engine.executor import Executor, SerialExecutor, ThreadsExecutor
from pipeline.engine.settings import ClusterSettings
from pipeline.errors import BadInput
from workers.dask_executor import DaskExecutor
from workers.gpu import pins, visible_gpus
from workers.handshake import require_same_versions

_CONNECT_S = 20.0
_LOST_WORKER = "distributed.deploy.lost-worker-timeout"
_PRE_SPAWN = "distributed.nanny.pre-spawn-environ"
# What numpy, torch and their libraries read when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Blocks are allocated and freed all the time. Dask has glibc give every array back to the system at once, and getting
# its pages again takes a quarter of the time of labelling; arrays of up to 32 MB (the limit) stay, 256 MB in all.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
# Of the worker process alone. Dask holds none of our data: spilling frees nothing, and a worker that is paused at 80 %
# of its memory by what it caches would never go on.
_WORKER_DASK_CONFIG = {f"distributed.worker.memory.{action}": False for action in ("target", "spill", "pause")}
# What the state machine of a worker and its nanny warn of when workers are closed at work, which is how a run is
# cancelled.
_CLOSED_AT_WORK = re.compile(
    r"Async instruction for .* ended with CancelledError|Worker process still alive after .* seconds, killing",
    re.DOTALL,
)


def is_news(record: logging.LogRecord) -> bool:
    """A logging filter: False for what Dask warns of when workers are closed at work."""
    return not _CLOSED_AT_WORK.fullmatch(record.getMessage())


class WorkerSetup(WorkerPlugin):
    """What every worker process of ours does when it starts, also one that joins or is restarted later.

    Args:
        own: the process was started by this driver; then Ctrl-C in the driver's terminal is the driver's to handle.
    """

    name = "teramito-worker-setup"

    def __init__(self, own: bool) -> None:
        self.own = own

    def setup(self, worker: Worker) -> None:
        """Ignore the terminal's interrupt, and close without a word."""
        if self.own and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            logging.getLogger("distributed.worker.state_machine").addFilter(is_news)


@contextmanager
def open_executor(config: ClusterSettings) -> Iterator[Executor]:
    """The executor a configuration asks for; its workers are gone when the context ends.

    Raises:
        BadInput: no GPU for kind cuda, no scheduler or no worker at the address.
        VersionMismatch: the workers at the address run other software.
    """
    if config.kind == "none":
        threads = config.threads_per_worker
        yield SerialExecutor() if threads == 1 else ThreadsExecutor(threads)
        return
    opened = _client_at_address if config.kind == "address" else _client_of_own_cluster
    with opened(config) as client:
        yield DaskExecutor(client, config.in_flight, config.worker_wait_s)


@contextmanager
def _client_at_address(config: ClusterSettings) -> Iterator[Client]:
    try:
        client = Client(config.address, timeout=_CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cluster.address: {config.address}",
            "a Dask scheduler must answer there",
            f"connecting failed: {error}".rstrip(". "),
            "Start one with `dask scheduler`, or use cluster.kind: local.",
        ) from error
    with client:
        _await_workers(client, 1, config)
        require_same_versions(client)
        client.register_plugin(WorkerSetup(own=False))
        yield client


@contextmanager
def _client_of_own_cluster(config: ClusterSettings) -> Iterator[Client]:
    environments = pins(config.workers, visible_gpus()) if config.kind == "cuda" else _cpu_environments(config)
    threads = str(compute_threads(config, len(environments)))
    variables = {**_MALLOC, **dict.fromkeys(_THREAD_VARIABLES, threads)}
    with (
        _own_environment(),
        _closed_quietly(),
        _started(config, environments, variables) as cluster,
        Client(cluster, timeout=_CONNECT_S, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        client.register_plugin(WorkerSetup(own=True))
        _await_workers(client, len(environments), config)
        yield client


def _cpu_environments(config: ClusterSettings) -> list[dict[str, str]]:
    """One empty environment a worker; by default two cores a worker, for the stages that do not use torch."""
    return [{} for _ in range(worker_count(config))]


def worker_count(config: ClusterSettings) -> int:
    """Worker processes that a configuration starts; 1 where it starts none and cannot know."""
    if config.kind == "local":
        return config.workers or max(1, CPU_COUNT // 2)
    return len(pins(config.workers, visible_gpus())) if config.kind == "cuda" else 1


def compute_threads(config: ClusterSettings, workers: int) -> int:
    """Threads of torch and BLAS in each of ``workers`` processes."""
    return config.compute_threads or max(1, CPU_COUNT // workers)


@contextmanager
def _started(
    config: ClusterSettings, environments: list[dict[str, str]], variables: Mapping[str, str]
) -> Iterator[SpecCluster]:
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": True,
            "dashboard_address": config.dashboard,
            "allowed_failures": config.allowed_failures,
        },
    }
    workers = {
        number: {"cls": Nanny, "options": _worker_options(config, environment, len(environments))}
        for number, environment in enumerate(environments)
    }
    # Variables that libraries read when loaded must be there before the process starts; nannies take them from here.
    # A worker that is restarted on a busy machine may need longer than the 15 s after which Dask gives it up for good.
    ours = {_PRE_SPAWN: {**dask.config.get(_PRE_SPAWN), **variables}, _LOST_WORKER: "10 minutes"}
    with dask.config.set(ours):
        cluster = SpecCluster(  # type: ignore[no-untyped-call]
            scheduler=scheduler, workers=workers, silence_logs=logging.WARNING, name="teramito"
        )
        with cluster:
            yield cluster


def _worker_options(config: ClusterSettings, environment: Mapping[str, str], workers: int) -> dict[str, Any]:
    limit = MEMORY_LIMIT // workers if config.memory_limit is None else parse_bytes(config.memory_limit)
    return {
        "host": "127.0.0.1",
        "nthreads": config.threads_per_worker,
        "memory_limit": limit,
        "config": _WORKER_DASK_CONFIG,
        "env": dict(environment),
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.WARNING,
        "death_timeout": 60,
    }


@contextmanager
def _closed_quietly() -> Iterator[None]:
    """Leave out what the nannies, which live in this process, warn of when they kill workers at work."""
    nannies = logging.getLogger("distributed.nanny")
    nannies.addFilter(is_news)
    try:
        yield
    finally:
        nannies.removeFilter(is_news)


@contextmanager
def _own_environment() -> Iterator[None]:
    """Put this process's environment back: a nanny leaves what it gives its worker in the driver too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _await_workers(client: Client, count: int, config: ClusterSettings) -> None:
    try:
        client.wait_for_workers(count, timeout=config.worker_wait_s)
    except TimeoutError as error:
        raise BadInput(
            f"cluster.kind: {config.kind}",
            f"needs {count} running worker{'s' if count > 1 else ''}",
            f"none came within {config.worker_wait_s:g} s" if count == 1 else "some did not start in time",
            "Start workers at that scheduler, or raise cluster.worker_wait_s.",
        ) from error
