"""status: how far a run is, once or until it is complete."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

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
        show(*_now(run, blocks, as_json)[1:])
    elif sys.stdout.isatty() and not as_json:
        _watch_on_terminal(run, blocks)
    else:
        _watch_as_text(run, blocks, as_json)


def _now(run: RunDirectory, blocks: bool, as_json: bool = False) -> tuple[bool, dict[str, Any], bool, list[str]]:
    """Whether the run is complete, and what ``show`` takes: facts, whether as JSON, lines."""
    steps, complete = steps_of(run), is_finished(run)
    return complete, status_facts(steps, complete), as_json, status_lines(steps, complete, blocks)


def _watch_on_terminal(run: RunDirectory, blocks: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    complete = False
    with Live(console=Console(highlight=False), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while not complete:
            complete, _, _, lines = _now(run, blocks)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            if not complete:
                time.sleep(WATCH_SECONDS)


def _watch_as_text(run: RunDirectory, blocks: bool, as_json: bool) -> None:
    """The state each time that it has changed: text, or with ``as_json`` one document after the other."""
    shown: dict[str, Any] = {}
    complete = False
    with suppress(KeyboardInterrupt):
        while not complete:
            complete, facts, _, lines = _now(run, blocks)
            if facts != shown:
                show(facts, as_json, lines)
                sys.stdout.flush()
                shown = facts
            if not complete:
                time.sleep(WATCH_SECONDS)


COMMANDS: dict[str, Command] = {"status": status}
