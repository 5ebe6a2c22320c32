"""The steps of the training of a network, its batches shared by threads and processes; exact after a kill."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.model.registry import build
from pipeline.training.record.log import TrainingLog
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.loader import Batch, Loader, default_threads
from pipeline.training.segmentation.loss import loss
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.unchanged import changed_history
from pipeline.training.state import Taken, TrainingState

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_FACTS = ("loss", "semantic", "boundary", "stop")
_SKIPS = 20
"""Steps in a row that float16 may skip while it looks for a scale; more is divergence."""


class TrainingRun(TrainingState[TrainConfig]):
    """One training in one process.

    Args:
        config: of the training.
        samples: the crops, in as many shards as the group computes together.
        output: directory of the checkpoints.
        group: the processes that train together.
        initial: weights to start from, see `start.initial_weights`.
    """

    remedy = "take precision float32 or bfloat16"
    elsewhere = "into another output, with initial naming a model if you want to go on from one"

    def __init__(
        self,
        config: TrainConfig,
        samples: Samples,
        output: Path,
        group: Group | None = None,
        initial: dict[str, Tensor] | None = None,
    ) -> None:
        self.samples, self.group = samples, group or Group(torch.device("cpu"))
        network = _made(config, self.group.device)
        if initial is not None:
            network.load_state_dict(initial)
        super().__init__(config, output, network, self.group.device)
        self.shards = self.group.shards(samples.shards)
        # On a CPU every shard has a thread and a copy; a GPU takes them one after the other.
        threads = len(self.shards) if self.device.type == "cpu" else 1
        self.replicas = [copy.deepcopy(self.network) for _ in range(threads)]
        self.forward: list[Callable[[Tensor], Tensor]] = [self._compiled(replica) for replica in self.replicas]
        self.pool = ThreadPoolExecutor(threads, "shard", initializer=_single_threaded)
        self._skipped = 0
        self._resume()
        self.loader = self._loader()

    def finish(self, stop: threading.Event, validate: Callable[[], None], told: TrainingLog | None) -> None:
        """Take all steps that are left, together with the other processes; see `TrainingState.finish`.

        Raises:
            RunCancelled: `stop` was set; saved after the step in hand.
        """

        def validate_for_all() -> None:
            validate()
            self.group.released()
            if self.config.begins_from_best(self.step):
                self.start_from_best()

        with torch.backends.cudnn.flags(benchmark=True):
            super().finish(stop, validate_for_all, told)

    def start_from_best(self) -> None:
        """Begin a stage: weights from the best average, a fresh optimiser."""
        self.load_best()
        self.network.load_state_dict(self.average.state_dict())
        self._fresh_optimiser()

    def recalibrate(self) -> None:
        """Set the BatchNorm statistics of the average to their mean over batches without augmentation."""
        norms = [module for module in self.average.modules() if isinstance(module, nn.BatchNorm3d)]
        if self.config.recalibration_batches and norms:
            # One thread of arithmetic: the sums of BatchNorm depend on their number.
            self.pool.submit(self._recalibrated, norms).result()

    def _recalibrated(self, norms: Sequence[nn.BatchNorm3d]) -> None:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean
        self.average.train()
        with torch.no_grad():
            for number in range(self.config.recalibration_batches):
                batch = self.samples.batch(self.config.steps + number, is_augmented=False, device=self.device)
                self.average.logits(batch[0])  # type: ignore[operator]
        self.average.eval()

    def close(self) -> None:
        """End the threads."""
        self.loader.close()
        self.pool.shutdown()

    def _compiled(self, replica: nn.Module) -> Callable[[Tensor], Tensor]:
        logits: Callable[[Tensor], Tensor] = replica.logits  # type: ignore[assignment]
        return torch.compile(logits) if self.config.compile else logits

    def _loader(self) -> Loader:
        threads = self.config.loaders or default_threads(self.device, self.group.size)
        steps = range(self.step, self.config.steps)
        return Loader(self.samples, self.shards, steps, self.device, threads, self.config.ahead)

    def _fresh_optimiser(self) -> None:
        super()._fresh_optimiser()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "float16")
        self.scaler.scale(torch.zeros((), device=self.device))  # makes its state now: later shards would do so at once

    def _content(self) -> dict[str, Any]:
        return {**super()._content(), "shards": self.samples.shards, "scaler": self.scaler.state_dict()}

    def _is_end(self) -> bool:
        return self.step in self.config.stage_ends()

    def _take(self, rate: float, stop: bool) -> Taken:
        waited = self.loader.waited
        batches = [self.loader.batch(self.step, shard) for shard in self.shards]
        mean = self.group.mean(self._shard_vectors(batches, stop))
        facts = dict(zip(_FACTS, mean[: len(_FACTS)].tolist(), strict=True))
        self._apply(mean[len(_FACTS) :], facts["loss"], rate)
        stage = self.config.stage(self.step)
        told = {name: round(facts[name], 6) for name in ("loss", "semantic", "boundary")}
        return Taken(told, self.loader.waited - waited, stage.batch * prod(stage.crop), facts["stop"] > 0)

    def _shard_vectors(self, batches: Sequence[Batch], stop: bool) -> list[Tensor]:
        """For each shard: facts, gradients and normalisation statistics in one vector."""
        if self.device.type == "cpu":
            return list(self.pool.map(self._shard_vector, range(len(batches)), batches, [stop] * len(batches)))
        return [self._shard_vector(0, batch, stop) for batch in batches]

    def _shard_vector(self, replica_number: int, batch: Batch, stop: bool) -> Tensor:
        replica = self.replicas[replica_number]
        replica.load_state_dict(self.network.state_dict())
        _set_mode(replica, self.config.norm_frozen(self.step))
        inputs, labels = batch
        dtype = _DTYPES[self.config.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.forward[replica_number](inputs.contiguous(memory_format=torch.channels_last_3d))
        total, parts = loss(logits.float(), labels, self.config.loss)
        replica.zero_grad()
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        facts = torch.stack([total.detach(), parts["semantic"], parts["boundary"], total.new_tensor(float(stop))])
        gradients = [_gradient(parameter) for parameter in replica.parameters()]
        return torch.cat([facts, *gradients, *(buffer.reshape(-1).float() for buffer in _statistics(replica))])

    def _apply(self, values: Tensor, loss_value: float, rate: float) -> None:
        """Gradients and statistics from a vector; clip; step."""
        self._require_finite(loss_value)
        targets = [*self.network.parameters(), *_statistics(self.network)]
        parts = torch.split(values, [target.numel() for target in targets])
        parameters = list(self.network.parameters())
        for parameter, part in zip(parameters, parts, strict=False):
            parameter.grad = part.reshape(parameter.shape).contiguous(memory_format=_layout(parameter))
        self.scaler.unscale_(self.optimiser)
        norm = self._clip_gradients()
        finite = math.isfinite(norm)
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self.scaler.is_enabled() or self._skipped > _SKIPS):
            self._require_finite(norm)
        self._set_rate(rate)
        with torch.no_grad():
            for buffer, part in zip(_statistics(self.network), parts[len(parameters) :], strict=True):
                buffer.copy_(part.reshape(buffer.shape))
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _changed(self, before: TrainConfig, stored: dict[str, Any]) -> list[str]:
        changed = changed_history(before, self.config, int(stored["step"]))
        if stored["shards"] != self.samples.shards:
            changed.append(f"shards ({stored['shards']} before, {self.samples.shards} now)")
        return changed

    def _restore(self, stored: dict[str, Any], before: TrainConfig) -> None:
        self.scaler.load_state_dict(stored["scaler"])
        super()._restore(stored, before)
        if self.config.begins_from_best(self.step) and not before.begins_from_best(self.step):
            self.start_from_best()  # a stage added to a finished training
            if self.group.rank == 0:
                self.save()  # a later best must not become this start after a kill


def _made(config: TrainConfig, device: torch.device) -> nn.Module:
    torch.manual_seed(config.seed)
    network = build(config.architecture, config.options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = config.norm_momentum
    return network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def _set_mode(network: nn.Module, norm_frozen: bool) -> None:
    network.train()
    for module in network.modules():
        if norm_frozen and isinstance(module, nn.BatchNorm3d):
            module.eval()


def _single_threaded() -> None:
    """The number of arithmetic threads is a property of the calling thread, and so is the rounding of denormals."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _gradient(parameter: nn.Parameter) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.reshape(-1)


def _layout(parameter: nn.Parameter) -> torch.memory_format:
    return torch.channels_last_3d if parameter.dim() == 5 else torch.contiguous_format


def _statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances; counters are left out, nothing here depends on them."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]
