"""The ``teramito`` command with one stage slowed down, so that a test can stop it in the middle of that stage.

Arguments: the stage, the seconds that each of its blocks takes longer, then those of ``teramito``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

from flows import cli
from flows.commands import run as commands
from pipeline.grid import Block, BlockGrid
from pipeline.job import Job
from pipeline.stage import BlockResult, Stage


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


if __name__ == "__main__":
    stage, seconds = sys.argv[1], float(sys.argv[2])
    make = commands.run_job

    def slowed_job(config):  # type: ignore[no-untyped-def]
        job, plan = make(config)
        return slow_down(job, stage, seconds), plan

    commands.run_job = slowed_job
    sys.argv = ["teramito", *sys.argv[3:]]
    cli.main()
