"""Commands whose modules are imported when they are called: ``teramito --help`` loads none of the work."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class OnCall(TyperCommand):
    """A command in the list of commands: a name, a line of help, and the way to the command itself.

    ``place`` is ``module.function`` or ``module.APP`` (a group of commands) of this room.
    """

    def __init__(self, name: str, place: str) -> None:
        self._module, self._function = place.split(".")
        super().__init__(name, callback=None, help=self._docstring())

    def loaded(self) -> Any:
        """The command itself, imported."""
        found = getattr(import_module(f"{__package__}.{self._module}"), self._function)
        app = found
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command(self.name)(found)
        command = typer.main.get_command(app)
        command.name = self.name
        return command

    def _docstring(self) -> str | None:
        """Of the function, or of the module where the place is a group; read from the file, without its imports."""
        module = ast.parse((Path(__file__).parent / f"{self._module}.py").read_bytes())
        functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        return ast.get_docstring(functions.get(self._function, module))


class CommandsOnCall(TyperGroup):
    """A group that imports the module of a command when that command is called, and only then."""

    places: ClassVar[dict[str, str]]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands.update({name: OnCall(name, place) for name, place in self.places.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name, imported, and the arguments left for it."""
        name, command, left = super().resolve_command(ctx, args)
        return name, command.loaded() if isinstance(command, OnCall) else command, left
