"""Training of a network for mitochondria: `train(config)` goes on from the last checkpoint and ends with a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pipeline.training.record.examples import write_examples
from pipeline.training.record.log import TrainingLog, TrainingProgress
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.examples import example_of
from pipeline.training.segmentation.export import export, keep_code
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import processes
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.segmentation.start import checked_network, initial_weights, multiple_of
from pipeline.training.segmentation.thresholds import tuned
from pipeline.training.segmentation.validation import PredictedMaps, mean_score, predicted, require_scorable, scores
from pipeline.training.segmentation.volumes import LabelledVolume, load_volume
from pipeline.training.session import made_output, stoppable


def train(config: TrainConfig, progress: TrainingProgress | None = None) -> Path:
    """Train, or go on training, and write NAME.json and NAME.safetensors into the output directory.

    On a CPU the weights have the same bits after a kill, for any number of threads and processes.

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
    shards, network = shard_count(config), checked_network(config)
    initial = initial_weights(config, network)
    volumes = [load_volume(source, config) for source in config.volumes]
    validation = [load_volume(source, config) for source in config.validation]
    require_scorable(validation, config, multiple_of(network, config.architecture))
    samples = Samples(volumes, config, shards)
    output = made_output(config, "with default thresholds and no scores")
    keep_code(config, output)
    with (
        stoppable() as stop,
        processes(config, output) as group,
        closing(TrainingRun(config, samples, output, group, initial)) as run,
        TrainingLog(output, progress, run.step) as told,
    ):
        run.finish(stop, Validation(run, validation, told), told)
        return _result(run, validation)


class Validation:
    """Scores the running average on volumes that it never saw, keeps the best, and shows what it looks like."""

    def __init__(self, run: TrainingRun, volumes: Sequence[LabelledVolume], told: TrainingLog) -> None:
        self._run, self._volumes, self._told = run, volumes, told

    def __call__(self) -> None:
        """Predict every volume, log its scores, draw curves and examples."""
        if self._volumes:
            self._score(self._run, _maps_of(self._run, self._volumes))
        self._told.draw()

    def _score(self, run: TrainingRun, maps: Sequence[PredictedMaps]) -> None:
        chosen = tuned(maps, self._volumes, quick=True)
        pairs = list(zip(self._volumes, maps, strict=True))
        found = [(volume.name, scores(one, volume, chosen)) for volume, one in pairs]
        run.told_scores(self._told, found, mean_score([one for _, one in found]), threshold=chosen.semantic)
        write_examples(run.output, run.step, [example_of(volume, one, chosen) for volume, one in pairs])


def _maps_of(run: TrainingRun, volumes: Sequence[LabelledVolume]) -> list[PredictedMaps]:
    return [predicted(run.average, volume, run.config, run.device) for volume in volumes]


def _result(run: TrainingRun, validation: Sequence[LabelledVolume]) -> Path:
    """The model, with thresholds tuned on the validation volumes."""
    run.select()
    run.recalibrate()
    chosen = tuned(_maps_of(run, validation), validation) if validation else None
    return export(run.average, run.config, run.output, chosen)
