"""Training from a configuration: `train(config)` goes on from the last checkpoint and ends with a model.

From a shell: `teramito train CONFIG`, or, where only torch, numpy and pydantic are installed,
`python -m pipeline.training.train CONFIG.json`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from pipeline.errors import RunCancelled, TeramitoError
from pipeline.lock import run_lock
from pipeline.model.spec import Thresholds
from pipeline.training.config import TrainConfig
from pipeline.training.curves import draw
from pipeline.training.examples import Example, write_examples
from pipeline.training.export import export, keep_code
from pipeline.training.log import Progress, TrainingLog
from pipeline.training.loop import TrainingRun
from pipeline.training.processes import processes, shard_count
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.samples import Samples
from pipeline.training.start import checked_network, initial_weights, multiple_of
from pipeline.training.thresholds import tuned
from pipeline.training.validation import Maps, can_label, mean_score, predict_op, predicted, scores, segmented
from pipeline.training.volumes import LabelledVolume, load_volume

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


def output_of(config: TrainConfig | RestorationConfig) -> Path:
    """The directory of a training; who trains there holds its `pipeline.lock.run_lock`."""
    return Path(os.path.expandvars(config.output)).expanduser().absolute()


def take_part(config: TrainConfig) -> None:
    """The other processes of a training: the same steps, but they neither validate nor write."""
    output = output_of(config)
    samples = Samples([load_volume(source, config) for source in config.volumes], config, shard_count(config))
    initial = initial_weights(config, checked_network(config))
    with processes(config, output) as group:
        run = TrainingRun(config, samples, output, group, initial)
        try:
            finish(run, threading.Event(), None, None)
        except RunCancelled:
            pass  # said by the first process
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


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, in the main thread; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_stop(number: int, _frame: FrameType | None) -> None:
        stop.set()
        log.info("stopping after this step")
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, set_stop)
    try:
        yield stop
    except KeyboardInterrupt:
        raise RunCancelled("interrupted; the last checkpoint is kept, the same command goes on from it") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """`python -m pipeline.training.train CONFIG.json`."""
    from pipeline.training.task import read_task, train_task  # imports this module

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        config = read_task(Path(arguments[0]))
        with run_lock(output_of(config)):
            log.info("wrote %s", train_task(config))
    except TeramitoError as error:
        log.error("%s", error)
        return 130 if isinstance(error, RunCancelled) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
