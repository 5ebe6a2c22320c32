"""A run directory belongs to one configuration and one driver, and is never mixed with other files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Teramito
from tiny_run import arguments, phantom_values, write_volume

from pipeline.engine.lock import run_lock

SMALL_RUN = {"predict.overlap": [0, 0, 0]}


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A volume of two patches."""
    return write_volume(tmp_path_factory.mktemp("small") / "raw", phantom_values((12, 32, 32)))


def _files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_directory_with_foreign_files_is_left_as_it_is(
    small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("do not touch")
    said = teramito("run", *arguments(small_path, tmp_path / "run", tiny_model))
    said.refuses(str(tmp_path / "run"), "is not empty and holds no run (thesis.txt)", "Choose an empty")
    assert _files(tmp_path / "run") == ["thesis.txt"]


def test_an_output_that_is_a_file_is_left_as_it_is(
    small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    (tmp_path / "run").write_text("do not touch")
    said = teramito("run", *arguments(small_path, tmp_path / "run", tiny_model))
    said.refuses(str(tmp_path / "run"), "is a directory, and this is a file")
    assert (tmp_path / "run").read_text() == "do not touch"


@pytest.mark.parametrize("content", ["", "{}", '{"settings": 3}', "not json", "[1]"])
def test_a_run_json_of_another_program_is_refused(
    content: str, small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(content)
    for said in (
        teramito("run", *arguments(small_path, tmp_path / "run", tiny_model)),
        teramito("verify", str(tmp_path / "run")),
    ):
        said.refuses("run.json", "does not hold the configuration of a run")
    assert _files(tmp_path / "run") == ["run.json"]


def test_a_run_of_another_configuration_is_refused_and_the_fields_are_named(
    small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    given = arguments(small_path, tmp_path / "run", tiny_model, SMALL_RUN)
    assert teramito("run", *given).code == 0
    before = _files(tmp_path / "run")
    said = teramito("run", *given, "--set", "instances.connectivity=26", "--set", "block.shape=[12,16,32]")
    said.refuses(
        "another configuration", "instances.connectivity: None -> 26", "block.shape: None -> [12, 16, 32]",
        "Use a new output directory",
    )  # fmt: skip
    assert _files(tmp_path / "run") == before
    assert "nothing to do" in teramito("run", *given).out


def test_another_cluster_is_not_another_configuration(
    small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    given = arguments(small_path, tmp_path / "run", tiny_model, SMALL_RUN)
    assert teramito("run", *given).code == 0
    assert "nothing to do" in teramito("run", *given, "--set", "cluster.in_flight=7").out


def test_another_volume_at_the_same_place_is_another_configuration(
    tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((12, 32, 32)))
    given = arguments(where, tmp_path / "run", tiny_model, SMALL_RUN)
    assert teramito("run", *given).code == 0
    shutil.rmtree(where)
    write_volume(tmp_path / "raw", phantom_values((16, 32, 32)))
    said = teramito("run", *given)
    said.refuses("another configuration", "source.shape: [12, 32, 32] -> [16, 32, 32]")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A run directory in which another driver works."""
    with run_lock(tmp_path / "run"):
        yield tmp_path / "run"


def test_a_second_driver_is_refused_while_the_first_works(
    held: Path, small_path: str, tiny_model: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(small_path, held, tiny_model, SMALL_RUN))
    said.refuses(str(held), "another run works in this directory", json.loads((held / "lock").read_text())["host"])
    assert _files(held) == ["lock"]


def test_a_directory_left_before_its_run_json_was_whole_is_taken_over(
    small_path: str, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / ".run.json.x1y2z3").write_text('{"teramito": "0.1')
    assert teramito("run", *arguments(small_path, tmp_path / "run", tiny_model, SMALL_RUN)).code == 0


def test_status_of_a_run_in_which_nothing_has_started(held: Path, teramito: Teramito) -> None:
    (held / "run.json").write_text('{"settings": {}}')
    said = teramito("status", str(held))
    assert said.code == 0
    assert "not complete" in said.out
    assert np.size(said.err) == 1
