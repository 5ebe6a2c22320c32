"""The steps of a restorer's training; exact to go on from after a kill."""

from __future__ import annotations

import time
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import BadInput
from pipeline.model.restorer import NETWORKS
from pipeline.training import checkpoint
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.samples import Samples
from pipeline.training.state import Taken, TrainingState

# Of no influence on the weights of a step; the learning rate is compared step by step instead.
_FREE = {"output", "description", "validation", "voxel_size_nm", "unsharp", "select", "device", "patch", "overlap"}
_FREE |= {"checkpoint_every", "validate_every", "steps", "optimiser"}

_LEAST = 1e-3
"""Added to the error that a crop's own is divided by (mse: of eight grey levels): two slices may be the same."""


class RestorationRun(TrainingState[RestorationConfig]):
    """One training in one process.

    Args:
        config: of the training.
        samples: its crops.
        output: directory of the checkpoints.
        device: to compute on.
    """

    remedy = "take precision float32"

    def __init__(self, config: RestorationConfig, samples: Samples, output: Path, device: torch.device) -> None:
        self.samples = samples
        torch.manual_seed(config.seed)
        network = NETWORKS[config.task](**config.options)
        # A step of 4x128x128 on one thread (torch 2.13, Xeon with AMX): 0.65 s, bfloat16 0.36 s, so laid out 0.24 s.
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(config, output, network, device)
        self._resume()

    def _take(self, rate: float, stop: bool) -> Taken:
        started = time.monotonic()
        batch = self.samples.batch(self.step)
        waited = time.monotonic() - started
        loss = self._loss(*(tensor.to(self.device) for tensor in batch))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        self._require_finite(value, self._clip_gradients())
        self._set_rate(rate)
        self.optimiser.step()
        return Taken({"loss": float(f"{value:.6g}")}, waited, self.config.batch * prod(self.config.crop), stop)

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

    def _resume(self) -> None:
        path = self.output / checkpoint.FILE
        if not path.is_file():
            return
        stored = torch.load(path, map_location="cpu", weights_only=True)
        before = _config_of(stored, path)
        checkpoint.require_unchanged(path, changed_history(before, self.config, int(stored["step"])))
        self._restore(stored, before)


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
