"""status: how far a run is, once or until it is complete."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import Json, show
from flows.commands.runs import existing_run, rebuilt_job
from flows.terminal.status import status_facts, status_lines
from pipeline.engine.directory import RunDirectory
from pipeline.engine.status import planned_stages, steps_of
from pipeline.engine.step import stage_names, stages_of
from pipeline.evaluation.results import is_compared
from pipeline.grid import BlockGrid
from pipeline.run.job import Job
from pipeline.run.verify import is_finished

WATCH_SECONDS = 2.0


def status(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Also every stage of a step, and every mip of a layer.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is complete, or Ctrl-C.")] = False,
    every: Annotated[
        float | None, typer.Option("--every", min=0.1, help="With --watch: seconds from one look to the next; 2.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how far each step is, also while the run goes on.

    Example: teramito status run1 --watch --every 5
    """
    run = _Watched(existing_run(directory))
    seconds = WATCH_SECONDS if every is None else every
    if not watch:
        _, facts, lines = run.now(blocks)
        show(facts, as_json, lines)
    elif sys.stdout.isatty() and not as_json:
        _watch_on_terminal(run, blocks, seconds)
    else:
        _watch_as_text(run, blocks, as_json, seconds)


class _Watched:
    """A run, and what its job says of it. The job is made again at most once, and only where it is asked for."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def now(self, blocks: bool) -> tuple[bool, dict[str, Any], list[str]]:
        """Whether the run is complete, and its state as facts and as lines."""
        steps = steps_of(self._directory, self._planned)
        verified = is_finished(self._directory)
        complete = verified or is_compared(self._directory.root)
        end = "complete and verified" if verified else "complete" if complete else "not complete"
        grids = self._grids if any(step.failed for step in steps) else {}
        return complete, status_facts(steps, complete, grids), [*status_lines(steps, blocks, grids), end]

    @cached_property
    def _job(self) -> Job | None:
        return rebuilt_job(self._directory)

    @cached_property
    def _planned(self) -> Mapping[str, list[str]]:
        """The stages of each step; of a run of a version that did not state them, as its job has them."""
        stated = planned_stages(self._directory)
        return stated if stated or self._job is None else stage_names(self._job.steps)

    @cached_property
    def _grids(self) -> Mapping[str, BlockGrid]:
        """The blocks of every stage, by its name; nothing where the job cannot be made again."""
        return {} if self._job is None else {stage.name: stage.grid for stage in stages_of(self._job.steps)}


def _watch_on_terminal(run: _Watched, blocks: bool, seconds: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    complete = False
    with Live(console=Console(highlight=False), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while not complete:
            complete, _, lines = run.now(blocks)
            live.update(Text("\n".join(lines), overflow="fold"), refresh=True)
            if not complete:
                time.sleep(seconds)


def _watch_as_text(run: _Watched, blocks: bool, as_json: bool, seconds: float) -> None:
    """The state each time that it has changed: text, or with ``as_json`` one document after the other."""
    shown: dict[str, Any] = {}
    complete = False
    with suppress(KeyboardInterrupt):
        while not complete:
            complete, facts, lines = run.now(blocks)
            if facts != shown:
                show(facts, as_json, lines)
                sys.stdout.flush()
                shown = facts
            if not complete:
                time.sleep(seconds)
