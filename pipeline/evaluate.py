"""Comparing a segmentation with a truth on the project's own engine: a stage of blocks, a ledger, an executor.

Each block's table of overlaps is stored; the driver adds them up and computes the scores. In a directory of its own
(``run.json``, ``ledgers/``, ``tables/overlap``, ``scores.json``, ``matches.parquet``, ``sheet.png``) a comparison goes
on where it was killed, and other ways to score the same volumes need no second look at the voxels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput, raise_all
from pipeline.evaluation import Contingency, average_precision, foreground
from pipeline.evaluation.classes import class_scores
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.examples import chosen, located
from pipeline.evaluation.scores import PRESETS, Scoring, instance_scores
from pipeline.executor import Executor, Progress, ThreadsExecutor, run_stage
from pipeline.files import write_whole
from pipeline.formats.address import absolute, is_remote
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.ledger import Ledger
from pipeline.run import RunDirectory, StepProgress, claim, identity, open_ledger, recognised, source_fingerprint
from pipeline.source_run import open_complete
from pipeline.stage import digest
from pipeline.stages.overlap import OverlapStage
from pipeline.volume import Volume

__all__ = ["Contingency", "average_precision", "contingency", "evaluate", "foreground"]

_BLOCK_VOXELS = 2**23  # as uint64 64 MiB of each volume
_LARGEST_CHUNK = 2**25  # a chunk of more voxels, one strip of a huge page, is read in parts


@dataclass(frozen=True)
class Comparison:
    """Two volumes to compare and the blocks they are cut into; ``output`` None for a temporary directory."""

    prediction: Volume
    truth: Volume
    grid: BlockGrid
    output: RunDirectory | None = None

    @contextmanager
    def opened(self) -> Iterator[RunDirectory]:
        """Hold the directory the tables go to.

        Raises:
            RunConflict: another process works there, or it holds anything but this comparison.
        """
        if self.output is None:
            with tempfile.TemporaryDirectory(prefix="teramito-evaluate-") as folder:
                yield RunDirectory(Path(folder))
            return
        recognised(self.output, self._manifest())  # before the lock, which is a file, goes into another's directory
        with self.output.locked():
            claim(self.output, self._manifest())
            yield self.output

    def stage(self, directory: RunDirectory) -> OverlapStage:
        """The block-wise part of the work."""
        fingerprint = digest({side: source_fingerprint(volume) for side, volume in self._sides().items()})
        tables = directory.block_tables("overlap")
        return OverlapStage(self.prediction, self.truth, fingerprint, tables, self.grid)

    def _sides(self) -> dict[str, Volume]:
        return {"prediction": self.prediction, "truth": self.truth}

    def _manifest(self) -> dict[str, Any]:
        sides = {side: {"address": str(volume), **identity(volume)} for side, volume in self._sides().items()}
        return {"settings": {**sides, "block": list(self.grid.block)}}


def comparison(config: EvaluateConfig) -> Comparison:
    """Open the volumes of a configuration.

    Raises:
        BadInput: the volumes differ in shape, hold no labels, or the directory is a URL.
    """
    prediction, truth = (open_complete(_located(address)) for address in (config.prediction, config.truth))
    output = None if config.output is None else _directory(config.output)
    return compared(prediction, truth, config.block.shape, output)


def compared(
    prediction: Volume, truth: Volume, block: Vec3 | None = None, output: RunDirectory | None = None
) -> Comparison:
    """Two volumes of labels as a comparison, by default in blocks that follow their chunks.

    Raises:
        BadInput: the shapes differ, or a volume holds floating-point numbers.
    """
    _require_comparable(prediction, truth)
    return Comparison(prediction, truth, BlockGrid(prediction.shape, block or _block(prediction, truth)), output)


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
        return overlaps(made, directory, executor or ThreadsExecutor(), watched)


def overlaps(
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
        run_stage(stage, ledger, executor, None if progress is None else progress("evaluate", stage))
        table = Contingency.merged(part for _, part in stored_tables(stage, ledger))
    raise_all([*_negative(made.prediction, table.prediction), *_negative(made.truth, table.truth)])
    return table.with_background(made.prediction.box.size)


def stored_tables(stage: OverlapStage, ledger: Ledger) -> Iterator[tuple[int, Contingency]]:
    """The tables of a finished stage, one after another, with the numbers of their blocks."""
    for number in np.flatnonzero(ledger.counts):
        arrays = stage.tables.read(int(number))
        yield int(number), Contingency(arrays["prediction"], arrays["truth"], arrays["voxels"])


def scores_of(table: Contingency, config: EvaluateConfig) -> dict[str, float]:
    """What a configuration asks for: scores of instances or of classes."""
    return class_scores(table) if config.classes else instance_scores(table, config.scoring)


def write_scores(directory: RunDirectory, scores: Mapping[str, float], config: EvaluateConfig) -> Path:
    """Store the scores and how they were counted in ``scores.json``."""
    scoring = config.scoring
    how = {} if config.classes else {"size_limits": list(scoring.limits), "ignore_below": scoring.ignore_below}
    compared_ = {"prediction": config.prediction, "truth": config.truth}
    path = directory.root / "scores.json"
    write_whole(path, json.dumps({**scores, **how, **compared_}, indent=2).encode())
    return path


def sheet_of(table: Contingency, made: Comparison, directory: RunDirectory, config: EvaluateConfig) -> bytes:
    """The sheet of a finished comparison as PNG: reads only blocks and planes that hold what it shows.

    Raises:
        BadInput: the image is of another shape.
    """
    from pipeline.evaluation.sheet import drawn, png, view

    raw = open_image(made, config)
    stage = made.stage(directory)
    examples = chosen(table.without_small_truth(config.scoring.ignore_below))
    with open_ledger(directory, stage) as ledger:
        places = located(examples, stored_tables(stage, ledger), made.grid, made.prediction, made.truth)
    volumes = made.prediction, made.truth, raw
    size = voxel_size(config, *(volume for volume in volumes if volume is not None))
    views = [view(example, place, volumes, size) for example, place in zip(examples, places, strict=True)]
    return png(drawn(views, size))


def open_image(made: Comparison, config: EvaluateConfig) -> Volume | None:
    """The image of a configuration, if it names one.

    Raises:
        BadInput: it is of another shape.
    """
    if config.raw is None:
        return None
    raw = open_complete(_located(config.raw))
    if raw.shape != made.truth.shape:
        raise BadInput(
            f"--raw {config.raw} of shape {raw.shape}",
            f"the image must have the shape of the labels, {made.truth.shape}",
            "outlines are drawn over it",
            "Crop it likewise.",
        )
    return raw


def voxel_size(config: EvaluateConfig, *volumes: Volume) -> FloatVec3 | None:
    """The voxel size given, or the first that a volume states."""
    stated = (volume.voxel_size_nm for volume in volumes)
    return config.voxel_size_nm or next((size for size in stated if size is not None), None)


def _located(address: str) -> str:
    """An address that means the same in any folder."""
    prefix = "precomputed://" if address.startswith("precomputed://") else ""
    return prefix + absolute(address.removeprefix(prefix))


def _directory(output: str) -> RunDirectory:
    if is_remote(output):
        raise BadInput(
            f"output {output}",
            "the directory of a comparison is a local or network-mounted path",
            "its ledger is an append-only file and its lock a file lock",
            "Compare into a directory and copy it.",
        )
    return RunDirectory(Path(output).expanduser().absolute())


def _block(prediction: Volume, truth: Volume) -> Vec3:
    """A block of about 2^23 voxels made of whole chunks of both volumes, where these are powers of each other."""
    extent = prediction.shape
    block = [min(max(p, t), e) for p, t, e in zip(prediction.chunks, truth.chunks, extent, strict=True)]
    while prod(block) > _LARGEST_CHUNK:
        axis = block.index(max(block))
        block[axis] = -(-block[axis] // 2)
    while growing := [axis for axis in range(3) if block[axis] < extent[axis] and 2 * prod(block) <= _BLOCK_VOXELS]:
        axis = min(growing, key=lambda axis: block[axis])
        block[axis] *= 2
    return vec3(min(b, e) for b, e in zip(block, extent, strict=True))


def _require_comparable(prediction: Volume, truth: Volume) -> None:
    problems = [_not_labels(volume, f"it holds {volume.dtype}") for volume in (prediction, truth) if _is_float(volume)]
    if prediction.shape != truth.shape:
        problems.append(
            BadInput(
                f"prediction {prediction} of shape {prediction.shape} and truth {truth} of shape {truth.shape}",
                "both must have one shape",
                "they are compared voxel by voxel",
                "Crop the larger one, or compare at the same resolution.",
            )
        )
    raise_all(problems)


def _is_float(volume: Volume) -> bool:
    return np.dtype(volume.dtype).kind not in "bui"


def _negative(volume: Volume, ids: Any) -> list[BadInput]:
    """What is wrong with ids that were negative before they became unsigned."""
    found = ids[ids >= 2**63].astype(np.int64) if np.dtype(volume.dtype).kind == "i" else ids[:0]
    return [_not_labels(volume, f"it holds the value {found.min()}")] if len(found) else []


def _not_labels(volume: Volume, why: str) -> BadInput:
    return BadInput(
        str(volume),
        "labels must be whole numbers, 0 for the background and positive for instances",
        why,
        "Threshold a probability map and label it first.",
    )
