"""How far a run is, as lines for a terminal and as facts for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from flows.terminal.pace import duration
from pipeline.engine.status import StageStatus, StepStatus

_SHOWN = 3
_WIDTH = 24


def status_facts(steps: Sequence[StepStatus], complete: bool) -> dict[str, Any]:
    """What ``teramito status --json`` prints.

    ``steps``: one a step (of the export a layer) with its name, state (``done``, ``failed``, ``begun``, ``waiting``),
    blocks, done, failed, seconds, and its ``stages`` with the reason of every failed block. ``stages``: all stages,
    flat, in the order of work.
    """
    return {
        "complete": complete,
        "steps": [_step_facts(step) for step in steps],
        "stages": [_stage_facts(stage) for step in steps for stage in step.stages],
    }


def status_lines(steps: Sequence[StepStatus], complete: bool, blocks: bool = False) -> list[str]:
    """One line a step, ``blocks`` for each stage and mip below it; failed blocks are named under theirs."""
    lines = [line for step in steps for line in _step_lines(step, blocks)]
    return [*lines, "complete and verified" if complete else "not complete"]


def _step_lines(step: StepStatus, blocks: bool) -> Iterator[str]:
    if not step.stages:
        yield f"{step.step:{_WIDTH}} {step.state}"
        return
    yield f"{step.step:{_WIDTH}} {_counts(step.done, step.blocks, step.failed)}{_time(step)}"
    if blocks:
        yield from (
            f"  {stage.stage:{_WIDTH + 6}} {_counts(stage.done, stage.blocks, stage.failed)}" for stage in step.stages
        )
    for stage in step.stages:
        yield from _failures(stage)


def _counts(done: int, blocks: int, failed: int) -> str:
    return f"{done:>9,} of {blocks:>9,} blocks" + (f", {failed:,} failed" if failed else "")


def _time(step: StepStatus) -> str:
    return f", {duration(step.seconds)} of work" if step.seconds >= 1 else ""


def _failures(stage: StageStatus) -> Iterator[str]:
    for number, reason in islice(stage.failures.items(), _SHOWN):
        yield f"  {stage.stage}, block {number}: {reason}"
    if stage.failed > _SHOWN:
        yield f"  and {stage.failed - _SHOWN:,} more failed blocks of {stage.stage}"


def _step_facts(step: StepStatus) -> dict[str, Any]:
    return {
        "step": step.step,
        "state": step.state,
        "blocks": step.blocks,
        "done": step.done,
        "failed": step.failed,
        "seconds": round(step.seconds, 2),
        "stages": [
            {**_stage_facts(stage), "failures": {str(number): why for number, why in stage.failures.items()}}
            for stage in step.stages
        ],
    }


def _stage_facts(stage: StageStatus) -> dict[str, Any]:
    return {"stage": stage.stage, "blocks": stage.blocks, "done": stage.done, "failed": stage.failed}
