"""Comparing a segmentation with a truth on the project's own engine: a stage of blocks, a ledger, an executor.

Each block's table of overlaps is stored; the driver adds them up and computes the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.executor import Executor, Progress, ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.engine.step import StepProgress
from pipeline.errors import raise_all
from pipeline.evaluation.classes import class_scores
from pipeline.evaluation.comparison import STEP, Comparison, compared
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.inputs import negative
from pipeline.evaluation.overlaps import Contingency
from pipeline.evaluation.scores import PRESETS, Scoring, instance_scores
from pipeline.evaluation.stage import OverlapStage
from pipeline.geometry import Vec3
from pipeline.store.volume import Volume


def evaluate(
    prediction: Volume,
    truth: Volume,
    scoring: Scoring = PRESETS["mitoem"],
    block: Vec3 | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Compare a segmentation with the truth, block by block.

    Args:
        prediction, truth: labels or masks of one shape, 0 the background; any integer dtype or bool.
        scoring: how instances are counted.
        block: voxels z, y, x held at once; it has no influence on the result.
        executor: where blocks are compared; None for two threads.
        progress: called with (blocks done, blocks in all) after each block.

    Returns:
        See :func:`pipeline.evaluation.scores.instance_scores`.

    Raises:
        BadInput: the shapes differ, or a volume does not hold labels (float dtype, or negative values).
    """
    return instance_scores(contingency(prediction, truth, block, executor, progress), scoring)


def contingency(
    prediction: Volume,
    truth: Volume,
    block: Vec3 | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Contingency:
    """The table of overlaps of two volumes of one shape; arguments and errors as those of :func:`evaluate`."""

    def watched(_step: str, _stage: object) -> Progress:
        return lambda ledger: progress(ledger.done_count, ledger.size) if progress is not None else None

    made = compared(prediction, truth, block)
    with made.opened() as directory:
        return compared_blocks(made, directory, executor or ThreadsExecutor(), watched)


def compared_blocks(
    made: Comparison, directory: RunDirectory, executor: Executor, progress: StepProgress | None = None
) -> Contingency:
    """The table of overlaps of a comparison whose directory is held; blocks that are done are not done again.

    Raises:
        StageFailed: blocks could not be read; all others are kept.
        RunCancelled: ``progress`` asked to stop.
        BadInput: a volume holds negative values.
    """
    stage = made.stage(directory)
    with open_ledger(directory, stage) as ledger:
        run_stage(stage, ledger, executor, None if progress is None else progress(STEP, stage))
        table = Contingency.merged(part for _, part in stored_tables(stage, ledger))
    raise_all([*negative(made.prediction, table.prediction), *negative(made.truth, table.truth)])
    return table.with_background(made.prediction.box.size)


def stored_tables(stage: OverlapStage, ledger: Ledger) -> Iterator[tuple[int, Contingency]]:
    """The tables of a finished stage, one after another, with the numbers of their blocks."""
    for number in np.flatnonzero(ledger.counts):
        arrays = stage.tables.read(int(number))
        yield int(number), Contingency(arrays["prediction"], arrays["truth"], arrays["voxels"])


def kept_blocks(made: Comparison, directory: RunDirectory) -> int:
    """How many blocks of a comparison, whose directory is held, are done."""
    with open_ledger(directory, made.stage(directory)) as ledger:
        return ledger.done_count


def scores_of(table: Contingency, config: EvaluateConfig) -> dict[str, float]:
    """What a configuration asks for: scores of instances or of classes."""
    return class_scores(table) if config.classes else instance_scores(table, config.scoring)
