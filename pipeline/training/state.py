"""What every training is made of: network, running average, optimiser, checkpoints and the loop over its steps."""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from pipeline.errors import RunCancelled, TeramitoError
from pipeline.training import checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.record.log import TrainingLog

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainingConfig)


class TrainingDiverged(TeramitoError):
    """Loss or gradients are no longer finite; the last checkpoint, from before, is kept."""


class Taken(NamedTuple):
    """A step just taken: the facts that it logs, seconds waited for its batch, voxels in it, whether all shall stop."""

    facts: dict[str, float]
    waited: float
    voxels: int
    stop: bool


class TrainingState(ABC, Generic[Config]):
    """One training in one process.

    Args:
        config: of the training.
        output: directory of the checkpoints.
        network: with its first weights, on its device.
        device: to compute on.
    """

    remedy: ClassVar[str]
    """What else than another rate helps a training that diverged."""
    elsewhere: ClassVar[str] = "into another output"
    """Where to train again after that, when there is a checkpoint."""

    def __init__(self, config: Config, output: Path, network: nn.Module, device: torch.device) -> None:
        self.config: Config = config
        self.output, self.network, self.device = output, network, device
        self.average = copy.deepcopy(network).eval()
        self.step, self.best = 0, -math.inf
        self._fresh_optimiser()

    @abstractmethod
    def _take(self, rate: float, stop: bool) -> Taken:
        """One step of the optimiser at that learning rate; the weights stay as they are when it raises."""

    @abstractmethod
    def _changed(self, before: Config, stored: dict[str, Any]) -> list[str]:
        """What is no longer as in the configuration `before`, and would have altered the steps of a checkpoint."""

    def _is_end(self) -> bool:
        """Whether the step just taken is one after which to validate and save in any case."""
        return self.step == self.config.steps

    def advance(self, stop: bool = False) -> dict[str, Any]:
        """One step of the optimiser; the entry of the log. `stop` is shared: one process's is everyone's.

        Raises:
            TrainingDiverged: loss or gradients are not finite; the weights are those before the step.
        """
        started, rate = time.monotonic(), self.config.rate(self.step)
        taken = self._take(rate, stop)
        self.step += 1
        self._update_average()
        return {
            "step": self.step,
            **taken.facts,
            "rate": rate,
            "seconds": round(time.monotonic() - started, 4),
            "waited": round(taken.waited, 4),
            "voxels": taken.voxels,
            "stop": taken.stop,
        }

    def finish(self, stop: threading.Event, validate: Callable[[], None], told: TrainingLog | None) -> None:
        """Take all steps that are left; log, validate and save on the way.

        Args:
            stop: ends it after the step in hand.
            validate: called after every `validate_every` steps and at the end.
            told: the log; None for a process that takes part and writes nothing, checkpoints neither.

        Raises:
            RunCancelled: `stop` was set; saved after the step in hand.
        """
        while self.step < self.config.steps:
            entry = self.advance(stop.is_set())
            stopped = entry.pop("stop")
            if told is not None:
                told.add(entry)
            if self.step % self.config.validate_every == 0 or self._is_end():
                validate()
            is_due = stopped or self.step % self.config.checkpoint_every == 0 or self._is_end()
            if is_due and told is not None:
                self.save()
            if stopped:
                raise RunCancelled(f"stopped after step {self.step}, saved; the same command goes on from there")

    def save(self) -> None:
        """Store everything a resumed run needs; random numbers need nothing, each step has its own."""
        checkpoint.save(self.output / checkpoint.FILE, self._content())

    def keep_if_best(self, score: float) -> bool:
        """Store the running average if no validation before had this score."""
        if score <= self.best:
            return False
        self.best = score
        content = {"step": self.step, "score": score, "average": self.average.state_dict()}
        checkpoint.save(self.output / checkpoint.BEST, content)
        return True

    def told_scores(
        self, told: TrainingLog, found: Sequence[tuple[str, dict[str, Any]]], score: float, **more: Any
    ) -> None:
        """Keep the running average if its score is the best so far, and log the scores of each validation volume.

        Args:
            told: the log.
            found: names of the volumes and their scores.
            score: what the best weights are chosen by.
            more: stands in each line too.
        """
        best = self.keep_if_best(score)
        for name, scores in found:
            told.add({"step": self.step, "validation": name, **scores, "best": best, **more})

    def select(self) -> None:
        """Put the best average in place of the last one, where the configuration says so and there was a validation."""
        if self.config.select == "best" and self.config.validation:
            log.info("the best validated weights are those of step %d", self.load_best())

    def load_best(self) -> int:
        """Put the best average validated so far in place of the present one; returns the step it is from."""
        stored = checkpoint.load_best(self.output / checkpoint.BEST)
        self.average.load_state_dict(stored["average"])
        return int(stored["step"])

    def _content(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "config": self.config.model_dump_json(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def _resume(self) -> None:
        """Go on from the last checkpoint, where there is one.

        Raises:
            BadInput: another kind of training made it, or a configuration with which its steps would differ.
        """
        path = self.output / checkpoint.FILE
        found = checkpoint.load(path, type(self.config))
        if found is not None:
            stored, before = found
            checkpoint.require_unchanged(path, self._changed(before, stored))
            self._restore(stored, before)

    def _restore(self, stored: dict[str, Any], before: Config) -> None:
        """Go on from the content of a checkpoint, made with the configuration `before`."""
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        same_volumes = before.validation == self.config.validation  # scores on others cannot be compared
        self.step, self.best = int(stored["step"]), float(stored["best"]) if same_volumes else -math.inf
        log.info("going on from step %d", self.step)

    def _fresh_optimiser(self) -> None:
        settings = self.config.optimiser
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.dim() <= 1]
        groups = [{"params": weights, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, fused=self.device.type == "cuda")

    def _clip_gradients(self) -> float:
        """Their norm, before it was clipped."""
        limit = self.config.optimiser.gradient_norm
        return float(nn.utils.clip_grad_norm_(self.network.parameters(), math.inf if limit is None else limit))

    def _set_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _update_average(self) -> None:
        """The decay starts low, so that the first, poor weights are soon forgotten."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        pairs = list(zip(_tensors(self.average), _tensors(self.network), strict=True))
        with torch.no_grad():
            floats = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
            torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1.0 - decay)
            for mean, value in pairs:
                if not mean.is_floating_point():
                    mean.copy_(value)

    def _require_finite(self, *values: float) -> None:
        bad = [value for value in values if not math.isfinite(value)]
        if not bad:
            return
        path = self.output / checkpoint.FILE
        kept, where = "there is no checkpoint yet", "again"
        if path.exists():
            kept, where = f"the checkpoint before it is kept in {path}", self.elsewhere
        raise TrainingDiverged(
            f"loss or gradient is {bad[0]} in step {self.step + 1}: training has diverged; {kept}. Lower "
            f"optimiser.learning_rate, set optimiser.gradient_norm, or {self.remedy}; then train {where}."
        )


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
