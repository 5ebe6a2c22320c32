"""train, curves: networks for tissue of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import Json, NoPrefect, show
from pipeline.errors import BadInput


def train_command(
    config: Annotated[Path, typer.Argument(help="Training configuration, JSON or YAML.")],
    no_prefect: NoPrefect = False,
    as_json: Json = False,
) -> None:
    """Train a network; the same command again goes on from the last checkpoint.

    Example: teramito train pipeline/training/configs/mito-v1.json

    A configuration with a `task` (interpolation, noise2noise) trains a restorer of slices, without any labels.
    """
    from flows.reports.training import report_lines
    from flows.terminal.training_progress import terminal_progress
    from pipeline.training.task import read_task

    settings = read_task(config)
    progress = terminal_progress(settings.steps)
    if no_prefect:
        from flows.drive_training import train_bare

        report = train_bare(settings, progress)
    else:
        from flows.tracking.launch import train_with_prefect

        report = train_with_prefect(settings, progress, lambda line: typer.echo(line, err=True))
    show(report, as_json, report_lines(report))


def curves_command(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Output directory of a training.")],
) -> None:
    """Draw the curves, examples and TensorBoard events of a training from its log, also while it goes on.

    Example: teramito curves trained/mito-v1
    """
    from pipeline.training.record.curves import draw_all
    from pipeline.training.record.history import LOG

    if not (output / LOG).exists():
        raise BadInput(str(output), "it must be the output directory of a training", f"it holds no {LOG}")
    written = draw_all(output)
    if not written:
        raise BadInput(str(output), "drawing needs matplotlib or tensorboard", "neither is installed", "Install them.")
    typer.echo("\n".join(map(str, written)))
