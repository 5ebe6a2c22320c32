"""Training of a restorer from a configuration: `train_restorer(config)` goes on from the last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.errors import BadInput, raise_all
from pipeline.model.device import device_of
from pipeline.model.restorer import NETWORKS
from pipeline.training.record.curves import draw
from pipeline.training.record.log import Progress, TrainingLog
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.export import export
from pipeline.training.restoration.loop import RestorationRun
from pipeline.training.restoration.samples import Samples, Stack, load_stack
from pipeline.training.restoration.validation import scores
from pipeline.training.session import output_of, stoppable

log = logging.getLogger(__name__)


def train_restorer(config: RestorationConfig, progress: Progress | None = None) -> Path:
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
    require_trainable(config)
    samples = Samples([load_stack(source) for source in config.volumes], config)
    validation = [load_stack(source) for source in config.validation]
    least = config.channels + 1
    raise_all([_too_thin(stack, least) for stack in validation if len(stack.raw) < least])
    if not validation:
        log.warning("no validation volume: the last weights are written, without scores")
    output = output_of(config)
    output.mkdir(parents=True, exist_ok=True)
    with stoppable() as stop:
        run = RestorationRun(config, samples, output, device_of(config.device))
        told = TrainingLog(output, progress, run.step)
        run.finish(stop, partial(_validate, run, validation, told), told)
        if config.select == "best" and validation:
            log.info("the best validated weights are those of step %d", run.load_best())
        return export(run.average, config, output)


def require_trainable(config: RestorationConfig) -> None:
    """Refuse what can be refused without a volume.

    Raises:
        BadInput: a device, option, crop or patch that cannot be used.
    """
    device_of(config.device)
    network = NETWORKS[config.task](**config.options)
    multiple = int(network.multiple)  # type: ignore[arg-type]
    sizes = {"crop": config.crop, "patch": config.patch}
    raise_all([_misfit(name, size, multiple) for name, size in sizes.items() if any(n % multiple for n in size)])


def _validate(run: RestorationRun, stacks: Sequence[Stack], told: TrainingLog) -> None:
    """Score the running average, keep the best by its mean gain, draw the curves."""
    found = [scores(run.average, stack, run.config, run.device) for stack in stacks]
    if found:
        best = run.keep_if_best(float(np.mean([one["gain"] for one in found])))
        for stack, one in zip(stacks, found, strict=True):
            told.add({"step": run.step, "validation": stack.name, **one, "best": best})
    draw(run.output)


def _misfit(name: str, size: tuple[int, int], multiple: int) -> BadInput:
    nearest = [max(1, round(length / multiple)) * multiple for length in size]
    return BadInput(
        f"{name} {list(size)}",
        f"it is a multiple of {multiple} in y and x",
        "the network halves it again and again",
        f"The nearest legal {name} is {nearest}.",
    )


def _too_thin(stack: Stack, slices: int) -> BadInput:
    return BadInput(
        f"validation volume {stack.name} of {len(stack.raw)} slices",
        f"it has at least {slices}",
        "a slice is compared with what was made of others",
        "Give more slices.",
    )
