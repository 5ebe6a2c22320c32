"""The state of a restorer's training and its steps; exact to go on from after a kill."""

from __future__ import annotations

import copy
import logging
import math
import time
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import BadInput
from pipeline.model.restorer import NETWORKS
from pipeline.training import checkpoint
from pipeline.training.loop import TrainingDiverged
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.samples import Samples

log = logging.getLogger(__name__)

# Of no influence on the weights of a step; the learning rate is compared step by step instead.
_FREE = {"output", "description", "validation", "voxel_size_nm", "unsharp", "select", "device", "patch", "overlap"}
_FREE |= {"checkpoint_every", "validate_every", "steps", "optimiser"}

_LEAST = 1e-3
"""Added to the error that a crop's own is divided by (mse: of eight grey levels): two slices may be the same."""


class RestorationRun:
    """One training in one process: network, running average of its weights, optimiser.

    Args:
        config: of the training.
        samples: its crops.
        output: directory of the checkpoints.
        device: to compute on.
    """

    def __init__(self, config: RestorationConfig, samples: Samples, output: Path, device: torch.device) -> None:
        self.config, self.samples, self.output, self.device = config, samples, output, device
        torch.manual_seed(config.seed)
        network = NETWORKS[config.task](**config.options)
        # A step of 4x128x128 on one thread (torch 2.13, Xeon with AMX): 0.65 s, bfloat16 0.36 s, so laid out 0.24 s.
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        biases = [parameter for parameter in self.network.parameters() if parameter.dim() <= 1]
        decay = config.optimiser.weight_decay
        groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
        self.optimiser = torch.optim.Adam(groups, lr=config.optimiser.learning_rate)
        self.step, self.best = 0, -math.inf
        self._resume()

    def advance(self) -> dict[str, Any]:
        """One step of the optimiser; the entry of the log.

        Raises:
            TrainingDiverged: loss or gradients are not finite; the weights are those before the step.
        """
        started, rate = time.monotonic(), self.config.rate(self.step)
        batch = self.samples.batch(self.step)
        waited = time.monotonic() - started
        loss = self._loss(*(tensor.to(self.device) for tensor in batch))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        limit = self.config.optimiser.gradient_norm
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), math.inf if limit is None else limit)
        value = float(loss.detach())
        self._require_finite(value, float(norm))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return {
            "step": self.step,
            "loss": float(f"{value:.6g}"),
            "rate": rate,
            "seconds": round(time.monotonic() - started, 4),
            "waited": round(waited, 4),
            "voxels": self.config.batch * prod(self.config.crop),
        }

    def save(self) -> None:
        """Store everything a resumed run needs; random numbers need nothing, each step has its own."""
        content = {
            "step": self.step,
            "best": self.best,
            "config": self.config.model_dump_json(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        checkpoint.save(self.output / checkpoint.FILE, content)

    def keep_if_best(self, score: float) -> bool:
        """Store the running average if no validation before had this score."""
        if score <= self.best:
            return False
        self.best = score
        content = {"step": self.step, "score": score, "average": self.average.state_dict()}
        checkpoint.save(self.output / checkpoint.BEST, content)
        return True

    def load_best(self) -> int:
        """Put the best average validated so far in place of the present one; returns the step it is from."""
        stored = checkpoint.load_best(self.output / checkpoint.BEST)
        self.average.load_state_dict(stored["average"])
        return int(stored["step"])

    def _loss(self, inputs: Tensor, targets: Tensor, fractions: Tensor) -> Tensor:
        given = (inputs, fractions) if self.config.channels == 2 else (inputs,)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            made = self.network(*given)
        error = self._error(made.float(), targets)
        if self.config.is_balanced:
            error = error / (self._error(mean_of(inputs, fractions), targets) + _LEAST)
        return error.mean()

    def _error(self, made: Tensor, targets: Tensor) -> Tensor:
        """Of each crop, (N,)."""
        measure = functional.mse_loss if self.config.loss == "mse" else functional.l1_loss
        return measure(made, targets, reduction="none").mean(dim=(1, 2, 3))

    def _update_average(self) -> None:
        """The decay starts low, so that the first, poor weights are soon forgotten."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1.0 - decay)

    def _require_finite(self, *values: float) -> None:
        if not all(map(math.isfinite, values)):
            raise TrainingDiverged(
                f"loss or gradient is not finite in step {self.step + 1}: training has diverged; a checkpoint from "
                f"before, if there is one, is kept in {self.output}. Lower optimiser.learning_rate, set "
                "optimiser.gradient_norm, or take precision float32."
            )

    def _resume(self) -> None:
        path = self.output / checkpoint.FILE
        if not path.is_file():
            return
        stored = torch.load(path, map_location="cpu", weights_only=True)
        before = _config_of(stored, path)
        step = int(stored["step"])
        if changed := changed_history(before, self.config, step):
            raise BadInput(
                f"{path}: {', '.join(changed)}",
                "a run is resumed with the configuration that its past steps had",
                "the result would follow from neither configuration",
                "Restore these fields, or choose another `output`.",
            )
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        same_volumes = before.validation == self.config.validation  # scores on others cannot be compared
        self.step, self.best = step, float(stored["best"]) if same_volumes else -math.inf
        log.info("going on from step %d", self.step)


def mean_of(inputs: Tensor, fractions: Tensor) -> Tensor:
    """What needs no network, (N, 1, H, W): the mean of the slices weighted by their nearness, or the one slice."""
    return inputs[:, :1] if inputs.shape[1] == 1 else (1.0 - fractions) * inputs[:, :1] + fractions * inputs[:, 1:]


def changed_history(before: RestorationConfig, after: RestorationConfig, steps: int) -> list[str]:
    """The fields whose change would have altered one of the first `steps` steps."""
    old, new = (config.model_dump(mode="json", exclude=_FREE) for config in (before, after))
    changed = [name for name in old if old[name] != new[name]]
    fixed = [(c.optimiser.weight_decay, c.optimiser.gradient_norm) for c in (before, after)]
    if fixed[0] != fixed[1] or any(before.rate(step) != after.rate(step) for step in range(steps)):
        changed.append("steps or optimiser")
    return changed


def _config_of(stored: dict[str, Any], path: Path) -> RestorationConfig:
    try:
        return RestorationConfig.model_validate_json(stored["config"])
    except ValueError:
        raise BadInput(
            str(path),
            "it is the checkpoint of a restorer's training",
            "another kind of network is trained in this directory",
            "Choose another `output`.",
        ) from None
