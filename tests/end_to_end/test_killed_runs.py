"""A run that is stopped anywhere, by any signal, goes on where it was and ends with the identical result."""

from __future__ import annotations

import os
import shutil
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slow_driver import Driver
from tiny_restorer import denoise, whole, write_tiny_restorer
from tiny_run import (
    Result,
    arguments,
    job_of,
    ledger_lines,
    phantom_values,
    result_of,
    run_here,
    settings,
    write_volume,
)

from pipeline.engine.executor import Progress, SerialExecutor
from pipeline.engine.ledger import Ledger
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.stage import Stage
from pipeline.engine.step import run_step, stages_of
from workers.cluster import open_executor
from workers.dask_executor import DaskExecutor

BLOCKS = {"block.shape": [16, 48, 48], "export.layers": ["raw", "segmentation"]}  # 3 x 2 x 2 blocks
STAGES = ["predict", "label", "stitch", "grow", "relabel", "export-segmentation-mip0"]
LOCAL = {"cluster.kind": "local", "cluster.workers": 2, "cluster.compute_threads": 1}
HERE = {"cluster.kind": "none"}


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
    """Run all steps before the one with the stage ``until`` in this process."""
    job = job_of(values)
    with job.opened():
        for step in job.steps:
            if until in (stage.name for stage in step.all_stages()):
                return
            run_step(job.directory, step, SerialExecutor())


def _start(
    processes: ForkServerContext, stage: str, seconds: float, values: dict[str, Any], cluster: dict[str, Any]
) -> Driver:
    chosen = {f"{part}.{name}": value for part in ("block", "export", "denoise") for name, value in _part(values, part)}
    given = arguments(values["input"], Path(values["output"]), Path(values["model"]), {**chosen, **cluster})
    said = Path(values["output"]).parent / f"said-{stage}"
    return Driver(processes, (stage, seconds), ["run", "--no-prefect", *given], said)


def _part(values: dict[str, Any], name: str) -> Any:
    return values.get(name, {}).items()


def _await_lines(directory: Path, stage: str, count: int, driver: Driver) -> None:
    until = time.monotonic() + 120
    while len(ledger_lines(directory, stage)) < count:
        if not driver.runs or time.monotonic() > until:
            raise AssertionError(f"the driver came to its end too early: {driver.ended(signal.SIGKILL)}")
        time.sleep(0.01)


def _killed_and_resumed(driver: Driver, stage: str, values: dict[str, Any], least: int) -> Result:
    """Kill -9 once so many blocks are done, go on in this process; only blocks that were missing are computed."""
    directory = Path(values["output"])
    _await_lines(directory, stage, least, driver)
    driver.ended(signal.SIGKILL)
    before = ledger_lines(directory, stage)
    assert not (directory / "report.json").exists()
    result = run_here(values)
    after = ledger_lines(directory, stage)
    (blocks,) = (len(each.grid) for each in stages_of(job_of(values).steps) if each.name == stage)
    assert least <= len(before) < blocks
    assert after[: len(before)] == before
    assert sorted(int(line.split()[0]) for line in after) == list(range(blocks))
    assert (directory / "report.json").exists()
    return result


@pytest.mark.parametrize("stage", STAGES)
def test_after_kill_9_of_the_driver_only_the_missing_blocks_are_computed(
    stage: str, values: dict[str, Any], predicted: Path, undisturbed: Result, processes: ForkServerContext
) -> None:
    if stage != "predict":
        shutil.copytree(predicted, values["output"])
        _prepare(values, until=stage)
    # Starting workers takes most of the time here, and what they leave behind is the same in every stage.
    driver = _start(processes, stage, 0.3, values, LOCAL if stage in ("predict", "grow") else HERE)
    _killed_and_resumed(driver, stage, values, 3).require_same(undisturbed)


DENOISED = {"block.shape": [34, 32, 32], "export.layers": ["restored", "replaced", "segmentation"]}


@pytest.fixture(scope="module")
def denoised(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Result]:
    """A finished run that finds and restores damage, in some blocks of every stage; its configuration and result."""
    folder = tmp_path_factory.mktemp("denoised")
    raw = phantom_values((136, 32, 32))
    raw[[20, 70, 71, 131]] = 0
    where = write_volume(folder / "raw", raw)
    chosen = {**DENOISED, **denoise(write_tiny_restorer(folder / "restorer"))}
    values = settings(where, folder / "run", tiny_model, chosen)
    return values, run_here(values)


@pytest.mark.parametrize("stage", ["inspect", "compare", "damage", "restore"])
def test_after_kill_9_in_denoising_only_the_missing_blocks_are_computed(
    stage: str, denoised: tuple[dict[str, Any], Result], tmp_path: Path, processes: ForkServerContext
) -> None:
    done = Path(denoised[0]["output"])
    values = {**denoised[0], "output": str(tmp_path / "run")}
    driver = _start(processes, stage, 0.3, values, HERE)
    _killed_and_resumed(driver, stage, values, 1).require_same(denoised[1])
    for name in ("damage", "restored", "replaced"):
        np.testing.assert_array_equal(whole(tmp_path / "run" / "arrays" / name), whole(done / "arrays" / name))
    assert (tmp_path / "run" / "restored.json").read_bytes() == (done / "restored.json").read_bytes()


def test_ctrl_c_says_that_the_run_is_resumable_and_the_same_command_resumes(
    values: dict[str, Any], undisturbed: Result, processes: ForkServerContext
) -> None:
    directory = Path(values["output"])
    driver = _start(processes, "predict", 0.3, values, LOCAL)
    _await_lines(directory, "predict", 2, driver)
    _require_cancelled(*driver.ended(signal.SIGINT, group=True))  # a terminal sends it to the workers too
    before = ledger_lines(directory, "predict")

    code, said = _start(processes, "none", 0.0, values, HERE).ended()
    assert code == 0, said
    result_of(directory).require_same(undisturbed)
    assert ledger_lines(directory, "predict")[: len(before)] == before
    assert len(ledger_lines(directory, "predict")) == 12


def test_sigterm_ends_like_ctrl_c(
    values: dict[str, Any], predicted: Path, undisturbed: Result, processes: ForkServerContext
) -> None:
    directory = Path(values["output"])
    shutil.copytree(predicted, directory)
    driver = _start(processes, "label", 0.5, values, HERE)
    _await_lines(directory, "label", 2, driver)
    _require_cancelled(*driver.ended(signal.SIGTERM))
    run_here(values).require_same(undisturbed)


def _require_cancelled(code: int | None, said: str) -> None:
    assert code == 130, said
    assert "cancelled; finished blocks are kept, the same command resumes" in said
    assert "Traceback" not in said
    assert "distributed" not in said  # nor what Dask has to say of it


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
