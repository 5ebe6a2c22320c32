"""Opening and closing the workers of each kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cluster_stages import Recorder, ThreadCounter
from pydantic import ValidationError

from pipeline.engine.executor import SerialExecutor, ThreadsExecutor
from pipeline.engine.settings import ClusterSettings
from pipeline.errors import BadInput
from workers import gpu
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor

HERE = Path(__file__).parent
ORPHANS_GONE_S = 20.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "slurm"}, "local"),
        ({"worker": 2}, "Extra inputs are not permitted"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"kind": "address"}, "address belongs to kind address"),
        ({"address": "tcp://10.0.0.5:8786"}, "address belongs to kind address"),
        ({"kind": "none", "workers": 2}, "workers cannot be set with kind none"),
        (
            {"kind": "address", "address": "a:1", "memory_limit": "1 GiB"},
            "memory_limit cannot be set with kind address",
        ),
        ({"memory_limit": "much"}, "memory_limit"),
        ({"memory_limit": "0 GiB"}, "memory_limit"),
    ],
)
def test_a_wrong_cluster_configuration_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClusterSettings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        ClusterSettings(),
        ClusterSettings(workers=3, threads_per_worker=4, memory_limit="8 GiB", worker_wait_s=5),
        ClusterSettings(kind="address", address="tcp://10.0.0.5:8786"),
    ],
)
def test_a_cluster_configuration_survives_json(config: ClusterSettings) -> None:
    assert ClusterSettings.model_validate_json(config.model_dump_json()) == config


def test_kind_none_computes_in_this_process() -> None:
    with open_executor(ClusterSettings(kind="none", threads_per_worker=1)) as executor:
        assert isinstance(executor, SerialExecutor)
    with open_executor(ClusterSettings(kind="none")) as executor:
        assert isinstance(executor, ThreadsExecutor)


def test_kind_cuda_without_a_gpu_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_torch_count", lambda: 0)
    with pytest.raises(BadInput, match=r"Use cluster\.kind: local"), open_executor(ClusterSettings(kind="cuda")):
        pass


def test_kind_cuda_pins_one_process_to_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_torch_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with open_executor(ClusterSettings(kind="cuda")) as executor:
        assert isinstance(executor, DaskExecutor)
        seen = executor.client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    assert sorted(seen.values()) == ["0", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_an_address_where_nobody_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cluster._CONNECT_S", 0.5)
    config = ClusterSettings(kind="address", address="tcp://127.0.0.1:1")
    with pytest.raises(BadInput, match="a Dask scheduler must answer there"), open_executor(config):
        pass


def test_a_running_scheduler_is_used_by_its_address_and_left_running(executor: DaskExecutor, tmp_path: Path) -> None:
    scheduler = executor.client.scheduler
    assert scheduler is not None
    config = ClusterSettings(kind="address", address=scheduler.address)
    with open_executor(config) as second:
        assert len(list(second.map(Recorder(tmp_path), range(20)))) == 20
    assert len(executor.client.nthreads()) == 2


def test_everything_listens_on_loopback_alone(executor: DaskExecutor) -> None:
    me = psutil.Process()
    sockets = [s for process in (me, *me.children(recursive=True)) for s in process.net_connections("tcp")]
    assert {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_workers_start_with_their_share_of_threads(executor: DaskExecutor, tmp_path: Path) -> None:
    (result,) = executor.map(ThreadCounter(tmp_path, name="threads", fingerprint="threads"), [0])
    assert result.count == 1


def test_workers_ignore_the_interrupt_of_the_terminal_and_the_driver_keeps_its_own(executor: DaskExecutor) -> None:
    handlers = executor.client.run(lambda: signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
    assert set(handlers.values()) == {True}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_that_are_closed_at_work_do_so_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = ClusterSettings(workers=1, threads_per_worker=1, compute_threads=1, memory_limit="2 GiB", worker_wait_s=60)
    with open_executor(config) as executor:
        blocks = executor.map(Recorder(tmp_path, name="long", fingerprint="long", seconds=6.0), range(9))
        next(blocks)
        blocks.close()  # type: ignore[attr-defined]
    assert capfd.readouterr().err == ""


def test_a_killed_driver_leaves_no_worker_behind(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), *sys.path])
    command = [sys.executable, str(HERE / "orphan_driver.py"), str(tmp_path)]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    try:
        _wait_for((tmp_path / "pids").exists, 60.0)
    finally:
        driver.kill()
        driver.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    _wait_for(lambda: not any(_runs(pid) for pid in pids), ORPHANS_GONE_S)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition: object, seconds: float) -> None:
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not true after {seconds} s"
        time.sleep(0.05)
