"""A run from the command line with Prefect: its server, cancel, failure, and what is left after a SIGKILL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from running import ask, blocks_done, ended, flow_run_id, run_command, teramito, wait_for

from flows.tracking.server import prefect_server
from pipeline.errors import TeramitoError

LONG, MIDDLE, SHORT = (16, 128, 192), (16, 64, 128), (16, 64, 64)  # 48, 16 and 8 blocks


def test_cancel_in_prefect_stops_the_driver_and_the_same_command_resumes(api: str, tmp_path: Path) -> None:
    output = tmp_path / "cancelled-run"
    process = teramito(*run_command(output, LONG), api=api)
    number = flow_run_id(process)
    wait_for(lambda: blocks_done(output) >= 1, 60, "a block")
    # What the page's Cancel button sends.
    ask(api, f"flow_runs/{number}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    code, errors = ended(process, 20)
    assert code == 130
    assert "cancelled; finished blocks are kept" in errors
    assert "Traceback" not in errors
    flow_run = ask(api, f"flow_runs/{number}")
    assert flow_run["state_type"] == "CANCELLED"
    assert flow_run["name"] == "cancelled-run"
    kept = blocks_done(output)
    assert 1 <= kept < 48

    process = teramito(*run_command(output, LONG), api=api)
    number = flow_run_id(process)
    code, errors = ended(process)
    assert (code, errors.count("Traceback")) == (0, 0)
    assert ask(api, f"flow_runs/{number}")["state_type"] == "COMPLETED"
    assert blocks_done(output) == 48  # none was computed twice
    artifacts = ask(api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [number]}}})
    progress = {a["key"]: a["data"] for a in artifacts if a["type"] == "progress"}
    assert progress == dict.fromkeys(
        ["progress-run", *(f"progress-{step}" for step in ("predict", "label", "stitch", "grow", "relabel", "export"))],
        100,
    )
    (result,) = [a["data"] for a in artifacts if a["key"] == "teramito-result"]
    assert f"teramito view {output}" in result


def test_a_failed_run_is_failed_in_prefect_and_one_message_on_the_terminal(api: str, tmp_path: Path) -> None:
    output = tmp_path / "failed-run"
    arguments = list(run_command(output, SHORT))
    arguments[arguments.index("--input") + 1] = str(_zarr_with_a_torn_chunk(tmp_path))
    process = teramito(*arguments, api=api)
    number = flow_run_id(process)
    code, errors = ended(process)
    assert code == 1
    assert "Traceback" not in errors
    assert "stage predict" in errors
    flow_run = ask(api, f"flow_runs/{number}")
    assert flow_run["state_type"] == "FAILED"
    assert "stage predict" in flow_run["state"]["message"]


def _zarr_with_a_torn_chunk(folder: Path) -> Path:
    """The torn chunk lies between the slices that planning samples, so that a block finds it."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 32), np.uint8)
    array = zarr.create_array(str(folder / "torn.zarr"), shape=noise.shape, chunks=(2, 32, 32), dtype="uint8")
    array[:] = noise
    chunk = folder / "torn.zarr" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    return folder / "torn.zarr"


def test_after_a_sigkill_our_server_is_gone_and_the_next_run_closes_the_old_one_and_completes(tmp_path: Path) -> None:
    output = tmp_path / "killed-run"
    process = teramito(*run_command(output, MIDDLE), api=None)
    flow_run_id(process)
    wait_for(lambda: blocks_done(output) >= 1, 60, "a block")
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("server" in child.cmdline() for child in children)
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=15)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    process = teramito(*run_command(output, MIDDLE), api=None)
    code, errors = ended(process)
    assert code == 0, errors
    noise = [line for line in errors.splitlines() if not line.startswith(("Prefect: ", *_STAGES, "warning: "))]
    assert noise == []
    with sqlite3.connect(output / "prefect" / "prefect.db") as database:
        runs = database.execute("select state_type from flow_run order by created").fetchall()
        tasks = dict(database.execute("select name, state_type from task_run order by created").fetchall())
        logs = [row[0] for row in database.execute("select message from log")]
    assert runs == [("CRASHED",), ("COMPLETED",)]
    assert set(tasks.values()) == {"COMPLETED"}
    steps = ["predict", "label", "stitch", "merge", "grow", "select", "relabel", "export", "verify"]
    assert list(tasks) == steps
    assert "verify is done" in logs


_STAGES = ("predict:", "label:", "stitch:", "grow:", "relabel:", "measure:", "export-")


def test_a_given_server_that_does_not_answer_is_one_message(tmp_path: Path) -> None:
    process = teramito(*run_command(tmp_path / "run", SHORT), api="http://127.0.0.1:9/api")
    code, errors = ended(process)
    assert code == 1
    assert "PREFECT_API_URL=http://127.0.0.1:9/api: no Prefect server answers there" in errors


def test_a_conflict_is_refused_before_any_server_starts(tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "mine.txt").touch()
    code, errors = ended(teramito(*run_command(output, SHORT), api=None))
    assert code == 1
    assert "holds no run" in errors
    assert not (output / "prefect").exists()


def test_a_server_that_cannot_start_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.tracking.server.sys.executable", "/bin/false")
    with pytest.raises(TeramitoError, match=r"server\.log"), prefect_server(tmp_path / "home"):
        pass
