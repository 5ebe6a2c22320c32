"""Every public command explains itself with an example that its own parser accepts."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import app

EXPECTED = {
    "demo",
    "plan",
    "run",
    "status",
    "config",
    "verify",
    "view",
    "phantom",
    "evaluate",
    "convert",
    "table",
    "tune",
    "train",
    "model import",
}


def commands_of(group: Any, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every command by its words, also those of groups in the group."""
    found = {}
    for name, command in group.commands.items():
        words, command = (*before, name), command.loaded() if hasattr(command, "loaded") else command
        found |= commands_of(command, words) if hasattr(command, "commands") else {" ".join(words): command}
    return found


COMMANDS = commands_of(typer.main.get_command(app))


def test_the_commands_that_were_promised_are_there() -> None:
    assert set(COMMANDS) >= EXPECTED


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_a_command_has_an_example_that_parses(name: str) -> None:
    words, command = name.split(), COMMANDS[name]
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Example:" in shown.output
    example = next(line for line in command.help.splitlines() if "Example:" in line).split("Example:")[1]
    program, *given = shlex.split(example)
    assert (program, given[: len(words)]) == ("teramito", words)
    command.make_context(words[-1], given[len(words) :], resilient_parsing=False)


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if " " not in name))
def test_the_list_of_commands_has_the_first_words_of_each(name: str) -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"}).output.split())
    assert f"{name} {' '.join(COMMANDS[name].help.split(chr(10) * 2)[0].split())}"[:100] in shown


def test_a_command_that_is_none_is_named() -> None:
    refused = CliRunner().invoke(app, ["runn"])
    assert refused.exit_code == 2
    assert "runn" in refused.output and "'run'" in refused.output


def test_the_version_is_printed() -> None:
    import pipeline

    assert CliRunner().invoke(app, ["--version"]).output.strip() == pipeline.__version__
