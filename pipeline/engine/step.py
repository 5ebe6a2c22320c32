"""A step of a run: what a person sees as one stage, and how it is run, resumed and made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.executor import Executor, Progress, run_stage
from pipeline.engine.stage import Stage
from pipeline.store.volume import Volume

Check = Callable[[], list[str]]


@dataclass(frozen=True)
class Step:
    """What a person sees as one stage: block stages in order, then a global function that writes one table.

    ``planned`` gives further stages, which results of earlier steps decide: none before those results are there,
    afterwards always the same. ``finish`` must be quick to call again once its ``tables`` are there. ``arrays`` are
    those that its stages write. ``check`` says what verification finds wrong in what the step has made, once all
    blocks are done.
    """

    name: str
    stages: tuple[Stage, ...]
    arrays: tuple[Volume, ...] = ()
    tables: tuple[Path, ...] = ()
    prepare: Callable[[], None] = lambda: None
    planned: Callable[[], tuple[Stage, ...]] = lambda: ()
    finish: Callable[[], None] = lambda: None
    check: Check = list

    def all_stages(self) -> tuple[Stage, ...]:
        """Those known from the start and those known by now."""
        return (*self.stages, *self.planned())


def stages_of(steps: Sequence[Step]) -> list[Stage]:
    """All block stages of some steps that are known by now, in order."""
    return [stage for step in steps for stage in step.all_stages()]


def stage_names(steps: Sequence[Step]) -> dict[str, list[str]]:
    """The names of the stages of each step, in the order of work, as far as they are known from the start."""
    return {step.name: [stage.name for stage in step.stages] for step in steps}


def run_step(
    directory: RunDirectory,
    step: Step,
    executor: Executor,
    progress: StepProgress | None = None,
    earlier: Sequence[Step] | None = None,
) -> None:
    """Run what is missing of a step; calling it again resumes.

    Where blocks are missing although later results are there, somebody deleted a ledger because something was damaged.
    The later results were made from the old blocks, so the later results are discarded first.

    Args:
        directory: of the run.
        step: what to do.
        executor: where blocks run.
        progress: shows how far each stage is.
        earlier: the steps before this one, whose results stay; None keeps later ones too.

    Raises:
        StageFailed: blocks failed; all others are kept.
        RunCancelled: ``progress`` asked to stop.
    """
    stages = step.all_stages()
    begun, is_complete = _begun_and_complete(directory, stages)
    if earlier is not None and not is_complete:
        _discard_later(directory, earlier, step, begun)
    step.prepare()
    for stage in stages:
        report = None if progress is None else progress(step.name, stage)
        if not is_complete:
            with open_ledger(directory, stage) as ledger:
                run_stage(stage, ledger, executor, report)
    step.finish()


def _begun_and_complete(directory: RunDirectory, stages: Sequence[Stage]) -> tuple[list[Stage], bool]:
    """The stages with done blocks, up to the first incomplete one; and whether every stage is complete."""
    begun: list[Stage] = []
    for stage in stages:
        if not directory.ledger(stage.name).exists():
            return begun, False
        with open_ledger(directory, stage) as ledger:
            if ledger.done_count:
                begun.append(stage)
            if not ledger.is_complete:
                return begun, False
    return begun, True


def _discard_later(directory: RunDirectory, earlier: Sequence[Step], step: Step, begun: Sequence[Stage]) -> None:
    """Remove what was made of results that are made again now: all of later steps, and what this one has not kept.

    The report and the ledgers go first: whatever is killed in between, nothing that is left passes for finished.
    """
    directory.report.unlink(missing_ok=True)
    names = {stage.name for other in earlier for stage in other.all_stages()} | {stage.name for stage in begun}
    for path in (directory.root / "ledgers").glob("*.ledger"):
        if path.stem not in names:
            path.unlink()
    tables = {path for other in earlier for path in other.tables}
    for path in {*(directory.root / "tables").glob("*.npy"), directory.instances, directory.restoration} - tables:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    # Where no block is done the arrays go too: a block that is empty now writes nothing over what it was before.
    arrays = {Path(volume.url) for other in (*earlier, *([step] if begun else [])) for volume in other.arrays}
    for path in set((directory.root / "arrays").glob("*")) - arrays:
        shutil.rmtree(path)


StepProgress = Callable[[str, Stage], Progress]
