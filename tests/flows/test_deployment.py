"""The flows as Prefect deployments, and the configurations beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ask, tiff, tiny_model, wait_for

from pipeline.run.config import parse_config

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("file", sorted((DEPLOY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_configuration_is_valid(file: Path) -> None:
    assert parse_config(yaml.safe_load(file.read_text())).output == "run1"


def test_every_deployment_of_the_file_names_a_flow() -> None:
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
    assert [load_flow_from_entrypoint(one["entrypoint"]).name for one in deployments] == [
        "segment-volume",
        "instances-from-maps",
        "train-network",
    ]


@pytest.mark.parametrize("denoise", ["auto", "off", {"mode": "auto", "max_gap": 2}])
def test_the_parameters_of_a_deployment_take_denoising_as_the_configuration_does(denoise: Any) -> None:
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import validate

    from flows.segment import segment_volume

    form = parameter_schema(segment_volume).model_dump_for_openapi()
    given = {"input": "v", "output": "o", "denoise": denoise}
    assert validate({"config": given}, form) == []
    assert segment_volume.validate_parameters({"config": given})["config"] == parse_config(given)
    assert validate({"config": {**given, "denoise": "on"}}, form) != []


def test_a_run_started_from_the_api_with_a_typed_form_completes(api: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": api, "PREFECT_RUNNER_POLL_FREQUENCY": "1", "OMP_NUM_THREADS": "1"}
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "flows.deployment"], env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: _deployment(api) is not None, 60, "the deployment")
        deployment = _deployment(api)
        assert deployment is not None
        form = deployment["parameter_openapi_schema"]["definitions"]["RunConfig"]
        assert form["required"] == ["input", "output"]
        assert all("description" in form["properties"][name] for name in ("input", "output", "voxel_size_nm", "model"))
        output = tmp_path / "served"
        config = {
            "input": tiff((16, 64, 64)),
            "output": str(output),
            "voxel_size_nm": [10, 10, 10],
            "model": tiny_model(),
            "denoise": "off",
            "cluster": {"kind": "none"},
        }
        body = {"parameters": {"config": config}}
        number = ask(api, f"deployments/{deployment['id']}/create_flow_run", body)["id"]
        wait_for(lambda: _state(api, number) in ("COMPLETED", "FAILED", "CRASHED"), 120, "the end of the run")
        assert _state(api, number) == "COMPLETED", (tmp_path / "log").read_text()
        assert ask(api, f"flow_runs/{number}")["name"] == "served"
        assert (output / "report.json").exists()
    finally:
        server.terminate()
        server.wait(30)


def _deployment(api: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = ask(api, "deployments/name/segment-volume/segment-volume")
    except urllib.error.HTTPError:
        return None
    return found


def _state(api: str, number: str) -> str:
    return str(ask(api, f"flow_runs/{number}")["state_type"])
