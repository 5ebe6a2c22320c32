"""view: the result of a run in Neuroglancer."""

from __future__ import annotations

import signal
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.runs import existing_run
from pipeline.run.verify import is_finished

if TYPE_CHECKING:
    from flows.view import Shown


def view_command(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
) -> None:
    """Show the result in Neuroglancer, from this machine's loopback; Ctrl-C ends it.

    Example: teramito view run1 --port 9000
    """
    from flows.view import serving

    run_directory = existing_run(directory)
    try:
        with serving(run_directory, port) as shown:
            if not is_finished(run_directory):
                typer.echo("warning: this run is not complete; what is exported so far is shown", err=True)
            typer.echo("\n".join(_lines(shown)))
            if open_:
                webbrowser.open(shown.page)
            signal.pause()
    except KeyboardInterrupt:
        typer.echo("", err=True)


def _lines(shown: Shown) -> list[str]:
    if shown.offline:
        return [f"open {shown.page}", "Ctrl-C ends it"]
    sources = [f"  {name:13} {source}" for name, source in shown.layers.items()]
    return [
        "Neuroglancer is not installed here (pip install neuroglancer); the layers are served for any other:",
        *sources,
        f"open {shown.page}",
        "Ctrl-C ends it",
    ]
