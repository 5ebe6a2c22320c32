"""The ``teramito`` command in a process of its own, one stage slowed down so that a test can stop it in the middle."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

from flows import cli
from flows.commands import run as commands
from pipeline.engine.stage import BlockResult, Stage
from pipeline.grid import Block, BlockGrid
from pipeline.run.config import RunConfig
from pipeline.run.job import Job
from pipeline.run.plan import Plan


@dataclass(frozen=True)
class Slowed:
    """A stage, each block of which sleeps before it is run."""

    stage: Stage
    seconds: float

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def grid(self) -> BlockGrid:
        return self.stage.grid

    @property
    def fingerprint(self) -> str:
        return self.stage.fingerprint

    def warm_up(self) -> None:
        self.stage.warm_up()

    def __call__(self, block: Block) -> BlockResult:
        time.sleep(self.seconds)
        return self.stage(block)


def slow_down(job: Job, name: str, seconds: float) -> Job:
    """The job with that stage slowed down."""
    steps = tuple(
        replace(step, stages=tuple(Slowed(s, seconds) if s.name == name else s for s in step.stages))
        for step in job.steps
    )
    return replace(job, steps=steps)


def run_slowed(stage: str, seconds: float, given: list[str], said: Path) -> None:
    """What the process does: ``teramito`` with those arguments, alone in its session, its output into a file."""
    os.setsid()
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    make = commands.run_job

    def slowed_job(config: RunConfig) -> tuple[Job, Plan]:
        job, plan = make(config)
        return slow_down(job, stage, seconds), plan

    commands.run_job = slowed_job
    sys.argv = ["teramito", *given]
    cli.main()


class Driver:
    """That process, under way."""

    def __init__(self, processes: ForkServerContext, slowed: tuple[str, float], given: list[str], said: Path) -> None:
        self._said = said
        self._process = processes.Process(target=run_slowed, args=(*slowed, given, said))
        self._process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not come to its end."""
        return self._process.is_alive()

    def ended(self, number: int = 0, group: bool = False) -> tuple[int | None, str]:
        """Its exit code and what it said, after a signal to it (or to its whole group), if any, has ended it."""
        pid = self._process.pid
        assert pid is not None
        if number:
            (os.killpg if group else os.kill)(pid, number)
        self._process.join(120)
        return self._process.exitcode, self._said.read_text()
