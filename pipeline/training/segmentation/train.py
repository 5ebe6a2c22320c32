"""Training from a configuration: `train(config)` goes on from the last checkpoint and ends with a model.

From a shell: `teramito train CONFIG`, or, where only torch, numpy and pydantic are installed,
`python -m pipeline.training CONFIG.json`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.model.spec import Thresholds
from pipeline.training.record.curves import draw
from pipeline.training.record.examples import Example, write_examples
from pipeline.training.record.log import Progress, TrainingLog
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.export import export, keep_code
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import processes
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.segmentation.start import checked_network, initial_weights, multiple_of
from pipeline.training.segmentation.thresholds import tuned
from pipeline.training.segmentation.validation import (
    Maps,
    can_label,
    mean_score,
    predict_op,
    predicted,
    scores,
    segmented,
)
from pipeline.training.segmentation.volumes import LabelledVolume, load_volume
from pipeline.training.session import output_of, stoppable

log = logging.getLogger(__name__)

_EXAMPLE_SIDE = 320
"""Voxels in the plane of an example on the sheet."""


def train(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Train, or go on training, and write NAME.json and NAME.safetensors into the output directory.

    Args:
        config: all of it.
        progress: called with every entry of the log as it is written.

    Returns:
        The path of the specification NAME.json, which `load_model` and `--model` take.

    Raises:
        BadInput: a volume cannot be used, or the output directory holds a training of another configuration.
        RunCancelled: Ctrl-C or SIGTERM; a checkpoint was written after the step in hand.
        TrainingDiverged: the loss is no longer finite; the last checkpoint is kept.
    """
    output = output_of(config)
    shards, network = shard_count(config), checked_network(config)
    initial = initial_weights(config, network)
    volumes = [load_volume(source, config) for source in config.volumes]
    validation = [load_volume(source, config) for source in config.validation]
    for volume in validation:
        predict_op(volume, config, multiple_of(network, config.architecture))  # refuses what is too small
    samples = Samples(volumes, config, shards)
    if not validation:
        log.warning("no validation volume: the last weights are written, with default thresholds and no scores")
    output.mkdir(parents=True, exist_ok=True)
    keep_code(config, output)
    with stoppable() as stop, processes(config, output) as group:
        run = TrainingRun(config, samples, output, group, initial)
        told = TrainingLog(output, progress, run.step)
        try:
            finish(run, stop, Validation(run, validation, told), told)
            return _result(run, validation)
        finally:
            run.close()


def finish(run: TrainingRun, stop: threading.Event, validation: Validation | None, told: TrainingLog | None) -> None:
    """Take all steps that are left; log, validate and save on the way.

    Raises:
        RunCancelled: `stop` was set; saved after the step in hand.
    """

    def validate() -> None:
        if validation is not None:
            validation()
        run.group.released()
        if run.config.begins_from_best(run.step):
            run.start_from_best()

    with torch.backends.cudnn.flags(benchmark=True):
        run.finish(stop, validate, told)


class Validation:
    """Scores the running average, keeps the best, and shows what it looks like."""

    def __init__(self, run: TrainingRun, volumes: Sequence[LabelledVolume], told: TrainingLog) -> None:
        self._run, self._volumes, self._told = run, volumes, told

    def __call__(self) -> None:
        """Predict every validation volume, log its scores, draw curves and examples."""
        run = self._run
        if self._volumes:
            maps = _maps(run, self._volumes)
            chosen = tuned(maps, self._volumes, quick=True)
            found = [scores(one, volume, chosen) for one, volume in zip(maps, self._volumes, strict=True)]
            best = run.keep_if_best(mean_score(found))
            for volume, one in zip(self._volumes, found, strict=True):
                entry = {"step": run.step, "validation": volume.name, **one, "best": best}
                self._told.add({**entry, "threshold": chosen.semantic})
            shown = [_example(volume, one, chosen) for volume, one in zip(self._volumes, maps, strict=True)]
            write_examples(run.output, run.step, shown)
        draw(run.output)


def _example(volume: LabelledVolume, maps: Maps, chosen: Thresholds) -> Example:
    """The middle slices of a validation volume, cut in the plane to where most foreground is."""
    z, y, x = (slice(*span) for span in _telling_box(volume))
    made = segmented(maps, chosen, volume.voxel_size_nm) if can_label() else np.zeros(volume.raw.shape, np.uint32)
    return Example(
        name=volume.name,
        raw=volume.raw[z, y, x],
        truth=volume.instances[z, y, x],
        semantic=maps.semantic[z, y, x],
        boundary=maps.boundary[z, y, x],
        instances=made[z, y, x],
        voxel_size_nm=volume.voxel_size_nm,
    )


def _telling_box(volume: LabelledVolume) -> list[tuple[int, int]]:
    depth = volume.raw.shape[0]
    spans = [(max(0, depth // 2 - 1), min(depth, depth // 2 + 2))]
    middle = volume.instances[depth // 2] > 0
    for axis, size in enumerate(volume.raw.shape[1:]):
        along = middle.sum(axis=1 - axis)
        side = min(_EXAMPLE_SIDE, size)
        inside = np.convolve(along, np.ones(side, np.int64), "valid")
        start = int(inside.argmax())
        spans.append((start, start + side))
    return spans


def _maps(run: TrainingRun, volumes: Sequence[LabelledVolume]) -> list[Maps]:
    return [predicted(run.average, volume, run.config, run.device) for volume in volumes]


def _result(run: TrainingRun, validation: Sequence[LabelledVolume]) -> Path:
    """The model: the best average or the last, with thresholds tuned on the validation volumes."""
    if run.config.select == "best" and validation:
        log.info("the best validated weights are those of step %d", run.load_best())
    run.recalibrate()
    chosen: Thresholds | None = tuned(_maps(run, validation), validation) if validation else None
    return export(run.average, run.config, run.output, chosen)
