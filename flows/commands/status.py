"""status: how far a run is, once or until it is complete."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import Command, Json, show
from flows.commands.runs import existing_run
from flows.terminal.status import status_facts, status_lines
from pipeline.engine.directory import RunDirectory
from pipeline.engine.status import steps_of
from pipeline.run.verify import is_finished

WATCH_SECONDS = 2.0


def status(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Also every stage of a step, and every mip of a layer.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is complete, or Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far each step is, also while the run goes on.

    Example: teramito status run1 --watch
    """
    run = existing_run(directory)
    if not watch:
        show(status_facts(steps_of(run), is_finished(run)), as_json, _lines(run, blocks))
    elif sys.stdout.isatty() and not as_json:
        _watch_on_terminal(run, blocks)
    else:
        _watch_as_text(run, blocks, as_json)


def _lines(run: RunDirectory, blocks: bool) -> list[str]:
    return status_lines(steps_of(run), is_finished(run), blocks)


def _watch_on_terminal(run: RunDirectory, blocks: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        try:
            while True:
                live.update(Text("\n".join(_lines(run, blocks)), no_wrap=True, overflow="ellipsis"), refresh=True)
                if is_finished(run):
                    return
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


def _watch_as_text(run: RunDirectory, blocks: bool, as_json: bool) -> None:
    """The state each time that it has changed: text, or with ``as_json`` one document after the other."""
    shown: list[str] = []
    try:
        while True:
            lines = _lines(run, blocks)
            if lines != shown:
                show(status_facts(steps_of(run), is_finished(run)), as_json, lines)
                sys.stdout.flush()
                shown = lines
            if is_finished(run):
                return
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


COMMANDS: dict[str, Command] = {"status": status}
