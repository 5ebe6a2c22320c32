"""The Prefect server of a run: the one in ``PREFECT_API_URL``, else one of our own on loopback."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from pipeline.errors import TeramitoError

START_SECONDS = 120.0  # its first start makes a database: 8 s here on two idle cores, far more on a busy machine
_PR_SET_PDEATHSIG = 1
# One run needs no schedules, automations, worker pools nor clean-up of others: services that only poll its database.
_NOT_NEEDED = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """URL of a Prefect API that answers; our own server lives as long as this context and keeps its data in ``home``.

    Raises:
        TeramitoError: the server in ``PREFECT_API_URL`` does not answer, or our own does not start.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        _require_answer(given)
        yield given
        return
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("ab") as log:
        process = _start(home, port, log.fileno())
        try:
            import_module("prefect")  # takes seconds in this process too: meanwhile
            _wait(url, process, home)
            yield url
        finally:
            _stop(process)


def page_of(api_url: str) -> str:
    """The address of the server's pages."""
    return api_url.removesuffix("/").removesuffix("/api")


def _start(home: Path, port: int, log: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _NOT_NEEDED},
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C in the terminal is for the run, not for its server
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    """A server must not outlive a driver that was killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if _answers(url):
            return
        time.sleep(0.2)
    raise TeramitoError(
        f"the Prefect server did not start within {START_SECONDS:.0f} s; see {home / 'server.log'}. "
        "Set PREFECT_API_URL to a running one, or run with --no-prefect."
    )


def _require_answer(url: str) -> None:
    if not _answers(url):
        raise TeramitoError(
            f"PREFECT_API_URL={url}: no Prefect server answers there. Start it, unset the variable to let teramito "
            "start one, or run with --no-prefect."
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
