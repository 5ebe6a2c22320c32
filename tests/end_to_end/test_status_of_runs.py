"""The status of real runs: finished, damaged, of an earlier version, copied; and of comparisons."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Teramito
from tiny_run import run_here, settings, write_volume

from pipeline.engine.directory import RunDirectory
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import BlockResult
from pipeline.engine.status import status_of

BLOCKS = {"block.shape": [16, 48, 48], "export.layers": ["semantic", "segmentation"]}


@pytest.fixture(scope="module")
def finished(tiny_model: Path, phantom_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_here(settings(phantom_path, folder, tiny_model, BLOCKS))
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def facts_of(teramito: Teramito, directory: Path) -> dict[str, Any]:
    said = teramito("status", str(directory), "--json")
    assert said.code == 0, said
    facts: dict[str, Any] = json.loads(said.out)
    return facts


def make_older(directory: Path) -> None:
    """A run directory as versions left it that did not state the steps, with ledgers of an age that says nothing."""
    manifest = json.loads((directory / "run.json").read_text())
    del manifest["steps"]
    (directory / "run.json").write_text(json.dumps(manifest))
    for age, ledger in enumerate(sorted((directory / "ledgers").glob("*.ledger"))):
        os.utime(ledger, (1e9 + age, 1e9 + age))


def test_every_step_of_a_finished_run_is_done(finished: Path, teramito: Teramito) -> None:
    facts = facts_of(teramito, finished)
    assert facts["complete"] and {step["state"] for step in facts["steps"]} == {"done"}
    assert [step["step"] for step in facts["steps"]][-2:] == ["export semantic", "export segmentation"]


def test_the_report_and_the_status_have_the_stages_in_the_order_of_work(finished: Path, teramito: Teramito) -> None:
    stated = json.loads((finished / "run.json").read_text())["steps"]
    names = [name for stages in stated.values() for name in stages]
    assert [stage["stage"] for stage in json.loads((finished / "report.json").read_text())["stages"]] == names
    assert [stage["stage"] for stage in facts_of(teramito, finished)["stages"]] == names


def test_a_step_whose_ledger_was_deleted_is_not_called_done(copied: Path, teramito: Teramito) -> None:
    (copied / "ledgers" / "stitch.ledger").unlink()
    states = {step["step"]: step["state"] for step in facts_of(teramito, copied)["steps"]}
    assert states["stitch"] == "waiting" and states["label"] == "done" and states["merge"] == "done"


def test_a_run_of_an_earlier_version_has_the_steps_of_its_job(finished: Path, copied: Path, teramito: Teramito) -> None:
    make_older(copied)
    assert facts_of(teramito, copied)["steps"] == facts_of(teramito, finished)["steps"]


def test_the_report_of_an_earlier_version_that_is_resumed_is_in_the_order_of_work(
    finished: Path, tiny_model: Path, phantom_path: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    make_older(folder)
    (folder / "report.json").unlink()
    run_here(settings(phantom_path, folder, tiny_model, BLOCKS))
    report = json.loads((folder / "report.json").read_text())
    names = [stage["stage"] for stage in json.loads((finished / "report.json").read_text())["stages"]]
    assert [stage["stage"] for stage in report["stages"]] == names


def test_an_earlier_version_whose_input_is_gone_is_shown_by_what_has_begun(copied: Path, teramito: Teramito) -> None:
    make_older(copied)
    manifest = json.loads((copied / "run.json").read_text())
    manifest["settings"]["input"] = str(copied / "nowhere.zarr")
    (copied / "run.json").write_text(json.dumps(manifest))
    steps = {step["step"] for step in facts_of(teramito, copied)["steps"]}
    assert {"predict", "label", "stitch", "export segmentation"} <= steps


def test_a_failed_block_is_named_with_its_box(copied: Path, teramito: Teramito) -> None:
    path = copied / "ledgers" / "label.ledger"
    header = json.loads(path.read_text().splitlines()[0])
    path.unlink()
    with Ledger(path, "label", header["fingerprint"], header["blocks"]) as ledger:
        ledger.append(BlockResult(1, error="OSError: disk on fire"))
    (copied / "report.json").unlink()
    assert "label, block 1 [0:16,0:48,48:96]: OSError: disk on fire" in teramito("status", str(copied)).out
    (label,) = (step for step in facts_of(teramito, copied)["steps"] if step["step"] == "label")
    assert label["stages"][0]["boxes"] == {"1": {"start": [0, 0, 48], "stop": [16, 48, 96]}}


def test_levels_of_super_blocks_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.manifest.write_text(json.dumps({"settings": {}, "steps": {"merge": [], "relabel": ["relabel"]}}))
    for name in ("relabel", "merge-10", "merge-2", "merge-0"):
        Ledger(run.ledger(name), name, "f", 1).close()
    assert [status.stage for status in status_of(run)] == ["merge-0", "merge-2", "merge-10", "relabel"]


def test_a_comparison_is_complete_once_its_scores_are_written(tmp_path: Path, teramito: Teramito) -> None:
    labels = np.arange(4096, dtype=np.uint16).reshape(16, 16, 16) // 512
    volume = write_volume(tmp_path / "labels", labels, chunks=(8, 8, 8))
    given = tmp_path / "evaluate.yaml"
    given.write_text("classes: true\nblock: {shape: [8, 8, 8]}\n")
    said = teramito("evaluate", volume, volume, "--config", str(given), "--output", str(tmp_path / "out"))
    assert said.code == 0 and "miou" in said.out
    facts = facts_of(teramito, tmp_path / "out")
    assert facts["complete"]
    assert [(step["step"], step["done"], step["state"]) for step in facts["steps"]] == [("evaluate", 8, "done")]
    assert teramito("status", str(tmp_path / "out"), "--watch").out.rstrip().endswith("complete")
    (tmp_path / "out" / "scores.json").unlink()
    assert not facts_of(teramito, tmp_path / "out")["complete"]
