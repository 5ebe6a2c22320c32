"""A training from the command line and from a deployment: progress, curves, cancel, resume."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import ask, ended, flow_run_id, teramito, wait_for
from typer.testing import CliRunner

from flows.cli import app
from flows.reports.training import curves_page, score_table
from flows.terminal.training_pace import TrainingPace
from flows.terminal.training_progress import terminal_progress
from pipeline.errors import BadInput
from pipeline.training.record.history import read_history

LONG = 4000  # steps: more than a test waits for


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Dark discs on bright tissue: what a network of any size learns at once."""
    z, y, x = np.indices((4, 32, 32))
    instances = np.zeros(z.shape, np.uint16)
    for label, (cy, cx) in enumerate([(9, 9), (22, 22)], start=1):
        instances[(y - cy) ** 2 + (x - cx) ** 2 < 40] = label
    raw = np.where(instances > 0, 80, 180) + np.random.default_rng(0).integers(-20, 20, z.shape)
    path = tmp_path_factory.mktemp("volumes") / "discs.npz"
    np.savez(path, raw=raw.astype(np.uint8), instances=instances, voxel_size_nm=np.array([10.0, 10.0, 10.0]))
    return str(path)


def settings(discs: str, output: Path, steps: int = 6, every: int = 3) -> dict[str, Any]:
    return {
        "name": "tiny",
        "output": str(output),
        "volumes": [{"raw": discs}],
        "validation": [{"raw": discs}],
        "voxel_size_nm": [10, 10, 10],
        "options": {"widths": [2, 3, 4, 4, 4], "norm": "batch"},
        "stages": [{"steps": steps, "crop": [2, 32, 32], "batch": 2}],
        "optimiser": {"warmup_steps": 1},
        "checkpoint_every": 1,
        "validate_every": every,
        "patch": [4, 32, 32],
        "overlap": [1, 8, 8],
        "device": "cpu",
    }


def configuration(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "train.json"
    path.write_text(json.dumps(values))
    return str(path)


def last_step(output: Path) -> int:
    return read_history(output).last_step


def artifacts(api: str, number: str) -> dict[str, Any]:
    found = ask(api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [number]}}})
    assert len({one["key"] for one in found}) == len(found), "one artifact of a key, however often it was drawn"
    return {one["key"]: one["data"] for one in found}


def pictures(markdown: str) -> list[Image.Image]:
    """The pictures inside a page."""
    start = "](data:image/png;base64,"
    encoded = [part.partition(")")[0] for part in markdown.split(start)[1:]]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in encoded]


def test_a_training_shows_progress_curves_and_result_in_prefect(api: str, discs: str, tmp_path: Path) -> None:
    output = tmp_path / "shown"
    process = teramito("train", configuration(tmp_path, settings(discs, output)), "--json", api=api)
    number = flow_run_id(process)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors
    report = json.loads(printed)
    assert report["model"] == str(output / "tiny.json")
    assert Path(report["model"]).exists()
    assert (report["steps"], [one["validation"] for one in report["validation"]]) == (6, [read_name(output)])

    flow_run = ask(api, f"flow_runs/{number}")
    assert (flow_run["name"], flow_run["state_type"]) == ("shown", "COMPLETED")
    tasks = ask(api, "task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [number]}}})
    assert [(one["name"], one["state_type"]) for one in tasks] == [("train", "COMPLETED")]
    pages = artifacts(api, number)
    assert pages["training-progress"] == 100
    assert "step 6" in pages["training-curves"]
    assert [picture.format for picture in pictures(pages["training-curves"])] == ["PNG", "PNG"]
    assert "| 6 |" in pages["training-curves"], "the page is that of the last drawing"
    assert f"--model {output / 'tiny.json'}" in pages["training-result"]


def read_name(output: Path) -> str:
    (name,) = read_history(output).volumes
    return name


def test_cancel_in_prefect_keeps_a_checkpoint_and_the_same_command_goes_on(
    api: str, discs: str, tmp_path: Path
) -> None:
    output = tmp_path / "cancelled-training"
    process = teramito("train", configuration(tmp_path, settings(discs, output, LONG, LONG)), api=api)
    number = flow_run_id(process)
    wait_for(lambda: last_step(output) >= 3, 60, "a few steps")
    ask(api, f"flow_runs/{number}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    code, errors = ended(process, 30)
    assert (code, errors.count("Traceback")) == (130, 0), errors
    assert "saved; the same command goes on" in errors
    assert ask(api, f"flow_runs/{number}")["state_type"] == "CANCELLED"
    (task,) = ask(api, "task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [number]}}})
    assert task["state_type"] == "CANCELLED"
    stopped = last_step(output)
    assert 3 <= stopped < LONG

    process = teramito("train", configuration(tmp_path, settings(discs, output, stopped + 2, LONG)), api=api)
    number = flow_run_id(process)
    code, errors = ended(process)
    assert (code, errors.count("Traceback")) == (0, 0), errors
    steps = [entry["step"] for entry in read_history(output).steps]
    assert steps == list(range(1, stopped + 3))
    assert len((output / "log.jsonl").read_text().splitlines()) == stopped + 2 + 1, "no step was taken twice"
    assert ask(api, f"flow_runs/{number}")["state_type"] == "COMPLETED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupt_without_prefect_exits_with_130_and_names_the_way_on(
    discs: str, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "interrupted"
    command = ("train", configuration(tmp_path, settings(discs, output, LONG, LONG)), "--no-prefect")
    process = teramito(*command, api=None)
    wait_for(lambda: last_step(output) >= 2, 60, "a step")
    second = teramito(*command, api=None)
    code, errors = ended(second)
    assert (code, "another run works in this directory" in errors) == (1, True)
    process.send_signal(number)
    code, errors = ended(process, 30)
    assert (code, errors.count("Traceback")) == (130, 0), errors
    assert "the same command goes on" in errors
    assert not (output / "prefect").exists()


def test_a_yaml_configuration_trains_like_json(discs: str, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings(discs, tmp_path / "from-yaml", steps=2)))
    found = CliRunner().invoke(app, ["train", str(path), "--no-prefect"])
    assert found.exit_code == 0, found.output
    assert "teramito run --input VOLUME" in found.output
    assert (tmp_path / "from-yaml" / "tiny.json").exists()


def test_curves_are_drawn_later_from_the_log_alone(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5, "seconds": 1.0}\n{"step": 2, "lo')
    found = CliRunner().invoke(app, ["curves", str(tmp_path)])
    assert found.output.split() == [str(tmp_path / "curves.png"), str(tmp_path / "tensorboard")]
    with pytest.raises(BadInput, match=r"it holds no log\.jsonl"):
        CliRunner().invoke(app, ["curves", str(tmp_path / "elsewhere")], catch_exceptions=False)


def test_the_form_of_the_deployment_names_the_settings_and_its_values_are_taken(discs: str, tmp_path: Path) -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.training import train_network

    schema = parameter_schema(train_network).model_dump()
    form = schema["definitions"]["TrainConfig"]
    assert {"name", "output", "volumes", "voxel_size_nm", "stages"} == set(form["required"])
    values = settings(discs, tmp_path / "form")
    taken = train_network.validate_parameters({"config": json.loads(json.dumps(values))})["config"]
    assert (taken.steps, taken.voxel_size_nm) == (6, (10.0, 10.0, 10.0))
    with pytest.raises(Exception, match="stepz"):
        train_network.validate_parameters({"config": values | {"stepz": 3}})


def test_the_pace_tells_step_loss_scores_and_time_left() -> None:
    pace = TrainingPace(200)
    for step in range(1, 101):
        pace.note({"step": step, "loss": 100.0 if step <= 80 else 0.5})
    pace.note({"step": 100, "validation": "a", "iou": 0.8, "ap75": 0.5})
    pace.note({"step": 100, "validation": "b", "iou": 0.6, "ap75": 0.7})
    assert str(pace).startswith("step 100 of 200 (50 %), ")
    assert str(pace).endswith(" left; loss 0.5; IoU 0.700, AP-75 0.600 at step 100")
    pace.note({"step": 101, "loss": 0.5})
    pace.note({"step": 200, "validation": "a", "iou": 0.9})
    assert str(pace) == "step 200 of 200 (100 %); loss 0.5; IoU 0.900 at step 200"


def test_on_no_terminal_progress_is_whole_lines_and_the_last_step_is_told() -> None:
    out = io.StringIO()
    told = terminal_progress(3, out)
    for step in (1, 2, 3):
        told({"step": step, "loss": 0.25})
    assert out.getvalue() == "step 3 of 3 (100 %); loss 0.25\n"


def test_a_page_without_pictures_still_has_the_scores(tmp_path: Path) -> None:
    entry = {"step": 4, "validation": "a", "iou": 0.51234, "ap75": 0.25}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry))
    page = curves_page(tmp_path)
    assert "data:" not in page
    assert page.splitlines()[-1] == "| a | 4 | 0.512 |  |  | 0.250 |"
    assert score_table([]) == []


def test_the_command_line_without_prefect_loads_none(discs: str, tmp_path: Path) -> None:
    path = configuration(tmp_path, settings(discs, tmp_path / "bare", steps=1))
    script = f"""
import sys
from flows.cli import app
try:
    app(["train", {path!r}, "--no-prefect"])
except SystemExit as end:
    assert not end.code
print("prefect" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False", found.stderr
