"""Every public command explains itself with an example that its own parser accepts."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import app

GROUP = typer.main.get_command(app)
NAMES = sorted(GROUP.commands)  # type: ignore[attr-defined]
EXPECTED = {"demo", "plan", "run", "status", "verify", "view", "phantom", "evaluate", "convert", "train"}


def test_the_commands_that_were_promised_are_there() -> None:
    assert set(NAMES) >= EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_command_has_an_example_that_parses(name: str) -> None:
    command = GROUP.commands[name]  # type: ignore[attr-defined]
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example:" in shown.output
    example = next(line for line in command.help.splitlines() if "Example:" in line).split("Example:")[1]
    program, called, *given = shlex.split(example)
    assert (program, called) == ("teramito", name)
    command.make_context(name, given, resilient_parsing=False)


def test_the_version_is_printed() -> None:
    import pipeline

    assert CliRunner().invoke(app, ["--version"]).output.strip() == pipeline.__version__
