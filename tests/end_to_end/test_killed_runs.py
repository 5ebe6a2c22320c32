"""A run that is stopped anywhere, by any signal, goes on where it was and ends with the identical result."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Result, arguments, job_of, ledger_lines, run_here, settings

from pipeline.config import ClusterSettings
from pipeline.executor import Progress, SerialExecutor
from pipeline.ledger import Ledger
from pipeline.stage import Stage
from pipeline.step import run_step
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor

HERE = Path(__file__).parent
BLOCKS = {"block.shape": [16, 48, 48], "export.layers": ["raw", "segmentation"]}  # 3 x 2 x 2 blocks
STAGES = ["predict", "label", "stitch", "grow", "relabel", "export-segmentation-mip0"]
LOCAL = ["cluster.kind=local", "cluster.workers=2", "cluster.compute_threads=1"]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, phantom_path: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What every run of this file must end with."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return run_here(settings(phantom_path, folder, tiny_model, BLOCKS))


@pytest.fixture(scope="module")
def predicted(tiny_model: Path, phantom_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory in which the network is through, to be copied."""
    folder = tmp_path_factory.mktemp("predicted") / "run"
    _prepare(settings(phantom_path, folder, tiny_model, BLOCKS), until="label")
    return folder


@pytest.fixture
def values(tiny_model: Path, phantom_path: str, tmp_path: Path) -> dict[str, Any]:
    """The configuration of the run that is stopped."""
    return settings(phantom_path, tmp_path / "run", tiny_model, BLOCKS)


def _prepare(values: dict[str, Any], until: str) -> None:
    """Run all steps before ``until`` in this process."""
    job = job_of(values)
    with job.opened():
        for step in job.steps:
            if step.name == until:
                return
            run_step(job.directory, step, SerialExecutor())


def _start(stage: str, seconds: float, values: dict[str, Any], cluster: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "slow_driver.py"), stage, str(seconds), "run", "--no-prefect"]
    command += arguments(values["input"], Path(values["output"]), Path(values["model"]), BLOCKS)
    for setting in cluster:
        command += ["--set", setting]
    paths = os.pathsep.join([str(HERE.parents[1]), *sys.path])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _await_lines(directory: Path, stage: str, count: int, driver: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while len(ledger_lines(directory, stage)) < count:
        if driver.poll() is not None or time.monotonic() > until:
            driver.kill()
            raise AssertionError(f"the driver came to its end too early: {driver.communicate()}")
        time.sleep(0.01)


@pytest.fixture
def stopped() -> Iterator[list[subprocess.Popen[str]]]:
    """Drivers that are gone when the test is, whatever happens."""
    drivers: list[subprocess.Popen[str]] = []
    yield drivers
    for driver in drivers:
        if driver.poll() is None:
            driver.kill()
        driver.communicate()


@pytest.mark.parametrize("stage", STAGES)
def test_after_kill_9_of_the_driver_only_the_missing_blocks_are_computed(
    stage: str, values: dict[str, Any], predicted: Path, undisturbed: Result, stopped: list[subprocess.Popen[str]]
) -> None:
    directory = Path(values["output"])
    if stage != "predict":
        shutil.copytree(predicted, directory)
        _prepare(values, until=stage.split("-")[0])
    # Starting workers takes most of the time here: two of the six stages do without.
    driver = _start(stage, 0.3, values, ["cluster.kind=none"] if stage in ("stitch", "relabel") else LOCAL)
    stopped.append(driver)
    _await_lines(directory, stage, 3, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    before = ledger_lines(directory, stage)

    assert not (directory / "report.json").exists()
    run_here(values).require_same(undisturbed)

    after = ledger_lines(directory, stage)
    blocks = 8 if stage.startswith("export") else 12
    assert 3 <= len(before) < blocks
    assert after[: len(before)] == before
    assert sorted(int(line.split()[0]) for line in after) == list(range(blocks))
    assert (directory / "report.json").exists()


def test_ctrl_c_says_that_the_run_is_resumable_and_the_same_command_resumes(
    values: dict[str, Any], undisturbed: Result, stopped: list[subprocess.Popen[str]]
) -> None:
    directory = Path(values["output"])
    driver = _start("predict", 0.3, values, LOCAL)
    stopped.append(driver)
    _await_lines(directory, "predict", 2, driver)
    os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _require_cancelled(driver)
    before = ledger_lines(directory, "predict")

    again = _start("none", 0.0, values, ["cluster.kind=none"])
    stopped.append(again)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    from tiny_run import result_of

    result_of(directory).require_same(undisturbed)
    assert ledger_lines(directory, "predict")[: len(before)] == before
    assert len(ledger_lines(directory, "predict")) == 12


def test_sigterm_ends_like_ctrl_c(
    values: dict[str, Any], predicted: Path, undisturbed: Result, stopped: list[subprocess.Popen[str]]
) -> None:
    directory = Path(values["output"])
    shutil.copytree(predicted, directory)
    driver = _start("label", 0.5, values, ["cluster.kind=none"])
    stopped.append(driver)
    _await_lines(directory, "label", 2, driver)
    driver.send_signal(signal.SIGTERM)
    _require_cancelled(driver)
    run_here(values).require_same(undisturbed)


def _require_cancelled(driver: subprocess.Popen[str]) -> None:
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "cancelled; finished blocks are kept, the same command resumes" in said
    assert "Traceback" not in said


def test_workers_that_are_killed_in_four_stages_leave_no_mark(values: dict[str, Any], undisturbed: Result) -> None:
    killed: list[str] = []
    cluster = ClusterSettings(workers=2, compute_threads=1, memory_limit="2 GiB", worker_wait_s=90)
    with open_executor(cluster) as executor:
        assert isinstance(executor, DaskExecutor)
        client = executor.client

        def watch(_step: str, stage: Stage) -> Progress:
            def progress(ledger: Ledger) -> None:
                wanted = ("predict", "label", "grow", "export-segmentation-mip0")
                if stage.name in wanted and stage.name not in killed and ledger.done_count >= 2:
                    killed.append(stage.name)
                    pids = client.run(os.getpid, on_error="ignore")
                    os.kill(next(iter(pids.values())), signal.SIGKILL)

            return progress

        run_here(values, executor, watch).require_same(undisturbed)
    assert killed == ["predict", "label", "grow", "export-segmentation-mip0"]
    for stage in killed:
        numbers = [int(line.split()[0]) for line in ledger_lines(Path(values["output"]), stage)]
        assert len(numbers) == len(set(numbers))
