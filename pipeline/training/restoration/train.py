"""Training of a restorer of slices: `train(config)` goes on from the last checkpoint and ends with a restorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.model.device import device_of
from pipeline.training.record.log import TrainingLog, TrainingProgress
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.export import export
from pipeline.training.restoration.loop import RestorationRun
from pipeline.training.restoration.samples import Samples
from pipeline.training.restoration.start import require_startable
from pipeline.training.restoration.validation import mean_score, require_scorable, scores
from pipeline.training.restoration.volumes import Stack, load_stack
from pipeline.training.session import made_output, stoppable


def train(config: RestorationConfig, progress: TrainingProgress | None = None) -> Path:
    """Train, or go on training, and write NAME.json and NAME.safetensors into the output directory.

    On a CPU the weights have the same bits after a kill, for one number of torch's threads.

    Args:
        config: all of it.
        progress: called with every entry of the log as it is written.

    Returns:
        The path of the specification NAME.json, which `load_restorer` takes.

    Raises:
        BadInput: a volume cannot be used, or the output directory holds a training of another configuration.
        RunCancelled: Ctrl-C or SIGTERM; a checkpoint was written after the step in hand.
        TrainingDiverged: the loss is no longer finite; the last checkpoint is kept.
    """
    require_startable(config)
    volumes = [load_stack(source) for source in config.volumes]
    samples = Samples(volumes, config)
    validation = [load_stack(source) for source in config.validation]
    require_scorable(validation, config)
    output = made_output(config, "without scores")
    with stoppable() as stop:
        run = RestorationRun(config, samples, output, device_of(config.device))
        with TrainingLog(output, progress, run.step) as told:
            run.finish(stop, Validation(run, validation, told), told)
            return _result(run)


class Validation:
    """Scores the running average on volumes that it never saw, and keeps the best."""

    def __init__(self, run: RestorationRun, volumes: Sequence[Stack], told: TrainingLog) -> None:
        self._run, self._volumes, self._told = run, volumes, told

    def __call__(self) -> None:
        """Restore slices of every volume, log its scores, draw curves."""
        run = self._run
        if self._volumes:
            found = [(stack.name, scores(run.average, stack, run.config, run.device)) for stack in self._volumes]
            run.told_scores(self._told, found, mean_score([one for _, one in found]))
        self._told.draw()


def _result(run: RestorationRun) -> Path:
    """The restorer."""
    run.select()
    return export(run.average, run.config, run.output)
