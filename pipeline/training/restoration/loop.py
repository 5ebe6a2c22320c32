"""The steps of a restorer's training; exact to go on from after a kill."""

from __future__ import annotations

import time
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.restorer import NETWORKS
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.samples import Samples
from pipeline.training.restoration.unchanged import changed_history
from pipeline.training.state import Taken, TrainingState

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

    def _changed(self, before: RestorationConfig, stored: dict[str, Any]) -> list[str]:
        return changed_history(before, self.config, int(stored["step"]))


def mean_of(inputs: Tensor, fractions: Tensor) -> Tensor:
    """What needs no network, (N, 1, H, W): the mean of the slices weighted by their nearness, or the one slice."""
    return inputs[:, :1] if inputs.shape[1] == 1 else (1.0 - fractions) * inputs[:, :1] + fractions * inputs[:, 1:]
