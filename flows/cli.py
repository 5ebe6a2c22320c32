"""The ``teramito`` command."""

from __future__ import annotations

import sys

import typer

from flows.commands import config, data, evaluate, model, run, status, table, train, tune, view
from pipeline import __version__
from pipeline.errors import RunCancelled, TeramitoError

EXIT_CANCELLED = 130

app = typer.Typer(
    name="teramito",
    help="From a teravoxel electron-microscopy volume to mitochondria instances in Neuroglancer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_GROUPS = (run, status, config, data, evaluate, table, tune, train, view)
for group in _GROUPS:
    for name, command in group.COMMANDS.items():
        app.command(name)(command)
app.add_typer(model.APP, name="model")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """From a teravoxel electron-microscopy volume to mitochondria instances in Neuroglancer."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run a command; every error of ours is one clear message and a non-zero exit."""
    try:
        app()
    except RunCancelled as cancelled:
        sys.exit(_said(str(cancelled), EXIT_CANCELLED))
    except TeramitoError as error:
        sys.exit(_said(f"error: {error}", 1))
    except OSError as error:
        # The disk or the network, not the program: a full disk, a share that went away. What is finished is kept.
        sys.exit(_said(f"error: {error}. Finished blocks are kept; the same command resumes.", 1))


def _said(message: str, code: int) -> int:
    typer.echo(message, err=True)
    return code


if __name__ == "__main__":
    main()
