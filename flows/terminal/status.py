"""How far a run is, as lines for a terminal and as facts for a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from flows.terminal.pace import duration
from pipeline.engine.status import StageStatus, StepStatus
from pipeline.grid import BlockGrid

_SHOWN = 3
_WIDTH = 24


Grids = Mapping[str, BlockGrid]
"""The blocks of stages, by name; of a stage that is not there the boxes are unknown."""


def status_facts(steps: Sequence[StepStatus], complete: bool, grids: Grids) -> dict[str, Any]:
    """What ``teramito status --json`` prints.

    ``steps``: one a step (of the export a layer) with its name, state (``done``, ``failed``, ``begun``, ``waiting``),
    blocks, done, failed, seconds of work, and its ``stages``, each with the reason of every failed block by its number
    (``failures``) and their voxels where they are known (``boxes``: start and stop, z y x). ``stages``: all stages,
    flat, in the order of work.
    """
    return {
        "complete": complete,
        "steps": [_step_facts(step, grids) for step in steps],
        "stages": [_stage_facts(stage) for step in steps for stage in step.stages],
    }


def status_lines(steps: Sequence[StepStatus], blocks: bool, grids: Grids) -> list[str]:
    """One line a step, ``blocks`` for each stage and mip below it; failed blocks are named under theirs."""
    return [line for step in steps for line in _step_lines(step, blocks, grids)]


def _step_lines(step: StepStatus, blocks: bool, grids: Grids) -> Iterator[str]:
    if not step.stages:
        yield f"{step.step:{_WIDTH}} {step.state}"
        return
    yield f"{step.step:{_WIDTH}} {_counts(step.done, step.blocks, step.failed)}{_time(step)}"
    if blocks:
        yield from (
            f"  {stage.stage:{_WIDTH + 6}} {_counts(stage.done, stage.blocks, stage.failed)}" for stage in step.stages
        )
    for stage in step.stages:
        yield from _failures(stage, grids)


def _counts(done: int, blocks: int, failed: int) -> str:
    return f"{done:>9,} of {blocks:>9,} blocks" + (f", {failed:,} failed" if failed else "")


def _time(step: StepStatus) -> str:
    return f", {duration(step.seconds)} of work" if step.seconds >= 1 else ""


def _failures(stage: StageStatus, grids: Grids) -> Iterator[str]:
    grid = grids.get(stage.stage)
    for number, reason in islice(stage.failures.items(), _SHOWN):
        box = "" if grid is None else f" {grid[number].core}"
        yield f"  {stage.stage}, block {number}{box}: {reason}"
    if stage.failed > _SHOWN:
        yield f"  and {stage.failed - _SHOWN:,} more failed blocks of {stage.stage}"


def _step_facts(step: StepStatus, grids: Grids) -> dict[str, Any]:
    return {
        "step": step.step,
        "state": step.state,
        "blocks": step.blocks,
        "done": step.done,
        "failed": step.failed,
        "seconds": round(step.seconds, 2),
        "stages": [{**_stage_facts(stage), **_failure_facts(stage, grids.get(stage.stage))} for stage in step.stages],
    }


def _failure_facts(stage: StageStatus, grid: BlockGrid | None) -> dict[str, Any]:
    boxes = {} if grid is None else {str(number): grid[number].core for number in stage.failures}
    return {
        "failures": {str(number): why for number, why in stage.failures.items()},
        "boxes": {number: {"start": list(box.start), "stop": list(box.stop)} for number, box in boxes.items()},
    }


def _stage_facts(stage: StageStatus) -> dict[str, Any]:
    return {"stage": stage.stage, "blocks": stage.blocks, "done": stage.done, "failed": stage.failed}
