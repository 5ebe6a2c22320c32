"""The ``teramito`` command."""

from __future__ import annotations

import sys
from typing import ClassVar

import typer

from flows.commands.on_call import CommandsOnCall
from pipeline import __version__
from pipeline.errors import RunCancelled, TeramitoError

EXIT_CANCELLED = 130


class Commands(CommandsOnCall):
    """Every command, and the function or group of ``flows.commands`` that it is."""

    places: ClassVar = {
        "plan": "run.plan",
        "run": "run.run",
        "verify": "run.verify_run",
        "instances": "run.instances_command",
        "status": "status.status",
        "config": "config.config",
        "demo": "data.demo",
        "phantom": "data.phantom",
        "convert": "data.convert_command",
        "evaluate": "evaluate.evaluate_command",
        "table": "table.table",
        "tune": "tune.tune",
        "train": "train.train_command",
        "curves": "train.curves_command",
        "view": "view.view_command",
        "model": "model.APP",
    }


app = typer.Typer(
    name="teramito",
    cls=Commands,
    help="From a teravoxel electron-microscopy volume to mitochondria instances in Neuroglancer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
