"""What a person sees of a run on a terminal, and the printed configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.config import CONFIGS, Whose, defaults_of, section_of, yaml_lines
from flows.terminal.bars import Bars
from flows.terminal.pace import Pace
from flows.terminal.progress import terminal_watcher
from pipeline.engine.directory import RunDirectory
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import BlockResult
from pipeline.engine.status import steps_of

PLANNED = {
    "predict": ["predict"],
    "label": ["label"],
    "merge": [],
    "relabel": ["relabel", "measure"],
    "export": ["export-raw-mip0", "export-raw-mip1", "export-segmentation-mip0"],
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose relabel has failed blocks, and whose super-merge was decided late."""
    directory = RunDirectory(tmp_path)
    directory.manifest.write_text(json.dumps({"settings": {}, "steps": PLANNED}))
    write(directory, "relabel", 6, done=1, failed={2: "BadInput: torn", 3: "BadInput: torn", 4: "b", 5: "c"})
    write(directory, "merge-0", 2, done=2)
    write(directory, "label", 6, done=6)
    write(directory, "predict", 6, done=6)
    return directory


def write(directory: RunDirectory, stage: str, size: int, done: int, failed: dict[int, str] | None = None) -> None:
    with Ledger(directory.ledger(stage), stage, "f", size) as ledger:
        for number in range(done):
            ledger.append(BlockResult(number, 1, 0.5, 1.0, 0.5))
        for number, reason in (failed or {}).items():
            ledger.append(BlockResult(number, error=reason))


def shown(*words: Any) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_status_has_a_line_a_step_in_the_order_of_work(run: RunDirectory) -> None:
    lines = shown("status", run.root).splitlines()
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [
        *("predict", "label", "merge", "relabel", "export raw", "export segmentation", "not complete"),
    ]
    assert "6 of         6 blocks, 12 s of work" in lines[0]
    assert lines[4].split() == ["relabel,", "block", "2:", "BadInput:", "torn"]
    assert "and 1 more failed blocks of relabel" in lines[7]
    assert lines[8].split() == ["export", "raw", "waiting"]


def test_blocks_shows_each_stage_of_a_step(run: RunDirectory) -> None:
    write(run, "measure", 6, done=0)
    text = shown("status", run.root, "--blocks")
    assert "  measure" in text and "  merge-0" in text


def test_status_for_a_program_names_every_failed_block(run: RunDirectory) -> None:
    facts = json.loads(shown("status", run.root, "--json"))
    assert not facts["complete"]
    states = {step["step"]: step["state"] for step in facts["steps"]}
    assert states == {
        **dict.fromkeys(("predict", "label", "merge"), "done"),
        "relabel": "failed",
        **dict.fromkeys(("export raw", "export segmentation"), "waiting"),
    }
    (relabel,) = (step for step in facts["steps"] if step["step"] == "relabel")
    assert relabel["stages"][0]["failures"] == {"2": "BadInput: torn", "3": "BadInput: torn", "4": "b", "5": "c"}
    assert [stage["stage"] for stage in facts["stages"]] == ["predict", "label", "merge-0", "relabel"]


def test_a_run_of_an_earlier_version_shows_what_has_begun(run: RunDirectory) -> None:
    run.manifest.write_text(json.dumps({"settings": {}}))
    assert {step.step for step in steps_of(run)} == {"predict", "label", "merge", "relabel"}


def test_a_step_of_two_stages_is_not_done_with_the_first(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.manifest.write_text(json.dumps({"settings": {}, "steps": PLANNED}))
    for stage in ("predict", "label", "relabel"):
        write(directory, stage, 2, done=2)
    assert [step.state for step in steps_of(directory)] == ["done", "done", "done", "begun", "waiting", "waiting"]


def test_watch_ends_with_the_run(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([False, False, False, True])
    monkeypatch.setattr("flows.commands.status.is_finished", lambda _run: next(ends))
    monkeypatch.setattr("flows.commands.status.WATCH_SECONDS", 0.0)
    text = shown("status", run.root, "--watch")
    assert text.count("not complete") == 1 and text.rstrip().endswith("complete and verified")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_a_step_with_speed_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    watcher = terminal_watcher(out)
    assert isinstance(watcher, Bars)
    with watcher:
        pace = Pace("relabel", 4, 0, 0.0, 2, "relabel", 1e6)
        watcher._show(pace)
        watcher._shown.refresh()
        pace.done = 4
        watcher._show(pace)
        watcher._show(Pace("measure", 4, 0, 0.0, 1, "relabel", 1e6))
        watcher._shown.refresh()
    text = out.getvalue()
    assert "2 of 4 blocks" in text and "5 of 8 blocks" in text
    assert "blocks/s" in text and "left" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is given back


def test_no_terminal_gets_plain_lines() -> None:
    out = io.StringIO()
    terminal_watcher(out)._on_pace(Pace("predict", 4, 0, 0.0, 4, "predict", 1.0))
    assert out.getvalue().startswith("predict: 4 of 4 blocks (100 %)")


@pytest.mark.parametrize("whose", list(Whose))
def test_the_printed_configuration_is_one_of_defaults_with_a_meaning_for_every_key(whose: Whose) -> None:
    text = shown("config", whose.value)
    model = CONFIGS[whose]
    required = {name for name, info in model.model_fields.items() if info.is_required()}
    given = dict.fromkeys(required, "x")
    assert model.model_validate({**yaml.safe_load(text), **given}) == model.model_validate(given)
    assert list(unexplained(model)) == []
    assert json.loads(shown("config", whose.value, "--json")) == defaults_of(model)
    assert set(json.loads(shown("config", whose.value, "--schema"))["properties"]) == set(model.model_fields)


def unexplained(model: type[BaseModel]) -> Any:
    """Settings without a meaning."""
    for name, info in model.model_fields.items():
        section = section_of(info)
        if section is not None:
            yield from unexplained(section)
        elif not info.description:
            yield f"{model.__name__}.{name}"


def test_what_must_be_given_is_commented_out() -> None:
    assert "# input:   # must be given" in "\n".join(yaml_lines(CONFIGS[Whose.run]))
