"""Comparing a segmentation with a truth on the project's own engine: a stage of blocks, a ledger, an executor.

Each block's table of overlaps is stored; the driver adds them up and computes the scores. In a directory of its own
(``run.json``, ``ledgers/``, ``tables/overlap``, ``scores.json``, ``matches.parquet``, ``sheet.png``) a comparison goes
on where it was killed, and other ways to score the same volumes do not compare them again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.engine.directory import RunDirectory, local_directory, open_ledger
from pipeline.engine.executor import Executor, Progress, ThreadsExecutor, run_stage
from pipeline.engine.finished import open_complete
from pipeline.engine.ledger import Ledger
from pipeline.engine.manifest import claim, recognised
from pipeline.engine.step import StepProgress
from pipeline.errors import BadInput, raise_all
from pipeline.evaluation import Contingency, average_precision, foreground
from pipeline.evaluation.classes import class_scores
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.examples import chosen_examples, located_examples
from pipeline.evaluation.inputs import block_of, full_address, negative, require_comparable, segmentation_of
from pipeline.evaluation.results import clear, is_comparison, require_unchanged_volumes
from pipeline.evaluation.scores import PRESETS, Scoring, instance_scores
from pipeline.evaluation.stage import OverlapStage
from pipeline.geometry import FloatVec3, Triple
from pipeline.grid import BlockGrid
from pipeline.store.identity import digest, identity, stored_files
from pipeline.store.volume import Volume

STEP = "evaluate"
__all__ = ["Contingency", "average_precision", "contingency", "evaluate", "foreground"]


@dataclass(frozen=True)
class Comparison:
    """Two volumes to compare and the blocks they are cut into; ``output`` None for a temporary directory."""

    prediction: Volume
    truth: Volume
    grid: BlockGrid
    output: RunDirectory | None = None

    @contextmanager
    def opened(self, again: bool = False) -> Iterator[RunDirectory]:
        """Hold the directory the tables go to; ``again`` forgets what was compared there.

        Raises:
            RunConflict: another process works there, it holds anything but this comparison, or a volume was changed.
        """
        if self.output is None:
            with tempfile.TemporaryDirectory(prefix="teramito-evaluate-") as folder:
                yield RunDirectory(Path(folder))
            return
        anew = again and is_comparison(self.output.root)
        if not anew:  # before the lock, which is a file, goes into another's directory
            require_unchanged_volumes(self.output.root, self.settings)
            recognised(self.output, {"settings": self.settings})
        with self.output.locked():
            if anew:
                clear(self.output.root)
            claim(self.output, {"settings": self.settings, "steps": {STEP: [OverlapStage.name]}})
            yield self.output

    def stage(self, directory: RunDirectory) -> OverlapStage:
        """The block-wise part of the work."""
        fingerprint = digest({side: self.settings[side] for side in self._sides()})
        tables = directory.block_tables("overlap")
        return OverlapStage(self.prediction, self.truth, tables, upstream=fingerprint, grid=self.grid)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the blocks depend on. With a directory each file of the volumes is looked at, once and at first use."""
        sides = {side: {"address": str(volume), **self._facts(volume)} for side, volume in self._sides().items()}
        return {**sides, "block": list(self.grid.block)}

    def _facts(self, volume: Volume) -> dict[str, Any]:
        return identity(volume) | (
            {} if self.output is None else {"file": stored_files(volume, without=self.output.root)}
        )

    def _sides(self) -> dict[str, Volume]:
        return {"prediction": self.prediction, "truth": self.truth}


def comparison(config: EvaluateConfig) -> Comparison:
    """Open the volumes of a configuration.

    Raises:
        BadInput: the volumes differ in shape, hold no labels, or the directory is a URL.
    """
    prediction, truth = (open_complete(segmentation_of(address)) for address in (config.prediction, config.truth))
    directory = None
    if config.output is not None:
        directory = local_directory(config.output, "Compare into a directory and copy it.")
    return compared(prediction, truth, config.block.shape, directory)


def compared(
    prediction: Volume, truth: Volume, block: Triple | None = None, output: RunDirectory | None = None
) -> Comparison:
    """Two volumes of labels as a comparison, by default in blocks that follow their chunks.

    Raises:
        BadInput: the shapes differ, or a volume holds floating-point numbers.
    """
    require_comparable(prediction, truth)
    return Comparison(prediction, truth, BlockGrid(prediction.shape, block or block_of(prediction, truth)), output)


def evaluate(
    prediction: Volume,
    truth: Volume,
    scoring: Scoring = PRESETS["mitoem"],
    block: Triple | None = None,
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
    block: Triple | None = None,
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


def scores_of(table: Contingency, config: EvaluateConfig) -> dict[str, float]:
    """What a configuration asks for: scores of instances or of classes."""
    return class_scores(table) if config.classes else instance_scores(table, config.scoring)


def addresses_of(made: Comparison, config: EvaluateConfig) -> dict[str, str]:
    """Where prediction and truth lie, whichever the folder one stands in."""
    return {
        "prediction": full_address(made.prediction, config.prediction),
        "truth": full_address(made.truth, config.truth),
    }


def kept_blocks(made: Comparison, directory: RunDirectory) -> int:
    """How many blocks of a comparison, whose directory is held, are done."""
    with open_ledger(directory, made.stage(directory)) as ledger:
        return ledger.done_count


def sheet_of(
    table: Contingency, made: Comparison, directory: RunDirectory, config: EvaluateConfig, old: Path | None = None
) -> bytes:
    """The sheet of a finished comparison as PNG: reads only blocks and planes that hold what it shows.

    An ``old`` sheet that shows the same instances on the same image is given back as it is, and no voxel is read.

    Raises:
        BadInput: the image is of another shape.
    """
    from pipeline.evaluation.sheet import drawn_sheet, example_view, marked, png

    raw = open_image(made, config)
    stage = made.stage(directory)
    examples = chosen_examples(table.without_small_truth(config.scoring.ignore_below))
    volumes = made.prediction, made.truth, raw
    size = sheet_voxel_size(config, *(volume for volume in volumes if volume is not None))
    image = None if raw is None or old is None else [str(raw), identity(raw), stored_files(raw)]
    shown = {"examples": list(map(asdict, examples)), "image": image, "size": size, "teramito": __version__}
    mark = digest({"blocks": stage.fingerprint, **shown})
    if old is not None and (found := marked(old, mark)):
        return found
    with open_ledger(directory, stage) as ledger:
        places = located_examples(examples, stored_tables(stage, ledger), made.grid, made.prediction, made.truth)
    views = [example_view(example, place, volumes, size) for example, place in zip(examples, places, strict=True)]
    return png(drawn_sheet(views, size), mark)


def open_image(made: Comparison, config: EvaluateConfig) -> Volume | None:
    """The image of a configuration, if it names one.

    Raises:
        BadInput: it is of another shape.
    """
    if config.raw is None:
        return None
    raw = open_complete(config.raw)
    if raw.shape != made.truth.shape:
        raise BadInput(
            f"--raw {config.raw} of shape {raw.shape}",
            f"the image must have the shape of the labels, {made.truth.shape}",
            "outlines are drawn over it",
            "Crop it likewise.",
        )
    return raw


def sheet_voxel_size(config: EvaluateConfig, *volumes: Volume) -> FloatVec3 | None:
    """The voxel size given, or the first that a volume states."""
    stated = (volume.voxel_size_nm for volume in volumes)
    return config.voxel_size_nm or next((size for size in stated if size is not None), None)
