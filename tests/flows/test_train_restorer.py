"""A restorer's training is the same command and the same flow as a network's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ask, flow_run_id, teramito
from typer.testing import CliRunner

from flows.cli import app
from flows.reports.training import score_table
from pipeline.errors import BadInput


@pytest.fixture
def noise(tmp_path: Path) -> str:
    raw = np.random.default_rng(0).integers(1, 255, (4, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", raw=raw)
    return str(tmp_path / "noise.npz")


def settings(volume: str, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "interpolation",
        "name": "tiny",
        "output": str(output),
        "volumes": [{"raw": volume}],
        "validation": [{"raw": volume}],
        "options": {"widths": [2, 2], "taps": 3},
        "steps": 4,
        "crop": [32, 32],
        "optimiser": {"warmup_steps": 1},
        "validate_every": 2,
        "patch": [32, 32],
        "overlap": [8, 8],
        "device": "cpu",
    } | changes


def written(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "train.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_a_restorer_is_trained_by_the_same_command_and_told_in_decibels(noise: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["train", written(tmp_path, settings(noise, tmp_path / "run")), "--no-prefect"])
    assert found.exit_code == 0, found.output
    assert "PSNR" in found.output
    assert "gain over the mean, dB" in found.output
    assert f"--set denoise.mode=auto --set denoise.model={tmp_path / 'run' / 'tiny.json'}" in found.output


def test_a_restorer_is_trained_by_the_flow_with_its_curves_and_result(api: str, noise: str, tmp_path: Path) -> None:
    process = teramito("train", written(tmp_path, settings(noise, tmp_path / "run")), "--json", api=api)
    number = flow_run_id(process)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.count("Traceback")) == (0, 0), errors
    assert json.loads(printed)["task"] == "interpolation"
    assert ask(api, f"flow_runs/{number}")["state_type"] == "COMPLETED"
    found = ask(api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [number]}}})
    pages = {one["key"]: one["data"] for one in found}
    assert pages["training-progress"] == 100
    assert "over the nearest, dB" in pages["training-curves"]
    assert "denoise.model=" in pages["training-result"]


def test_the_form_of_the_deployment_takes_a_restorer_too(noise: str, tmp_path: Path) -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.training import train_network

    assert {"TrainConfig", "RestorationConfig"} <= set(parameter_schema(train_network).model_dump()["definitions"])
    taken = train_network.validate_parameters({"config": settings(noise, tmp_path)})["config"]
    assert (taken.task, taken.crop) == ("interpolation", (32, 32))
    with pytest.raises(Exception, match="cropp"):
        train_network.validate_parameters({"config": settings(noise, tmp_path, cropp=3)})


def test_a_restorer_that_cannot_be_trained_is_refused_before_a_server_starts(noise: str, tmp_path: Path) -> None:
    path = written(tmp_path, settings(noise, tmp_path / "run", crop=[33, 33]))
    with pytest.raises(BadInput, match=r"crop \[33, 33\].*nearest legal crop is \[32, 32\]"):
        CliRunner().invoke(app, ["train", path], catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_names_those_there_are(noise: str, tmp_path: Path) -> None:
    path = written(tmp_path, settings(noise, tmp_path / "run", task="colour"))
    with pytest.raises(BadInput, match="task: Input should be 'interpolation' or 'noise2noise'"):
        CliRunner().invoke(app, ["train", path], catch_exceptions=False)


def test_the_scores_of_restorers_have_columns_of_their_own() -> None:
    (head, _, row) = score_table([{"validation": "a", "step": 4, "psnr": 20.5, "gain": 1.25}])
    assert head == "| volume | step | PSNR | gain over the mean, dB | over the nearest, dB |"
    assert row == "| a | 4 | 20.500 | 1.250 |  |"
