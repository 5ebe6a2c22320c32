"""The state of a training and its steps: network, running average, optimiser; exact to go on from after a kill."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import TeramitoError
from pipeline.model.registry import build
from pipeline.training import checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.loader import Batch, Loader, default_threads
from pipeline.training.loss import loss
from pipeline.training.processes import Group
from pipeline.training.samples import Samples

log = logging.getLogger(__name__)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_FACTS = ("loss", "semantic", "boundary", "stop")
_SKIPS = 20
"""Steps in a row that float16 may skip while it looks for a scale; more is divergence."""


class TrainingDiverged(TeramitoError):
    """Loss or gradients are no longer finite; the last checkpoint, from before, is kept."""


class TrainingRun:
    """One training in one process.

    Args:
        config: of the training.
        samples: the crops, in as many shards as the group computes together.
        output: directory of the checkpoints.
        group: the processes that train together.
        initial: weights to start from, see `start.initial_weights`.
    """

    def __init__(
        self,
        config: TrainConfig,
        samples: Samples,
        output: Path,
        group: Group | None = None,
        initial: dict[str, Tensor] | None = None,
    ) -> None:
        self.config, self.samples, self.output = config, samples, output
        self.group = group or Group(torch.device("cpu"))
        self.device = self.group.device
        self.network = self._made()
        if initial is not None:
            self.network.load_state_dict(initial)
        self.average = copy.deepcopy(self.network).eval()
        self.shards = self.group.shards(samples.shards)
        # On a CPU every shard has a thread and a copy; a GPU takes them one after the other.
        threads = len(self.shards) if self.device.type == "cpu" else 1
        self.replicas = [copy.deepcopy(self.network) for _ in range(threads)]
        self.forward: list[Callable[[Tensor], Tensor]] = [self._compiled(replica) for replica in self.replicas]
        self.pool = ThreadPoolExecutor(threads, "shard", initializer=_single_threaded)
        self.step, self.best, self._skipped = 0, -math.inf, 0
        self._fresh_optimiser()
        self._resume()
        self.loader = self._loader()

    def advance(self, stop: bool = False) -> dict[str, Any]:
        """One step of the optimiser; the entry of the log. `stop` is shared: one process's is everyone's.

        Raises:
            TrainingDiverged: loss or gradients are not finite; the weights are those before the step.
        """
        started, waited = time.monotonic(), self.loader.waited
        batches = [self.loader.batch(self.step, shard) for shard in self.shards]
        mean = self.group.mean(self._shard_vectors(batches, stop))
        facts = dict(zip(_FACTS, mean[: len(_FACTS)].tolist(), strict=True))
        rate = self.config.rate(self.step)
        self._apply(mean[len(_FACTS) :], facts["loss"], rate)
        self.step += 1
        self._update_average()
        stage = self.config.stage(self.step - 1)
        return {
            "step": self.step,
            "loss": round(facts["loss"], 6),
            "semantic": round(facts["semantic"], 6),
            "boundary": round(facts["boundary"], 6),
            "rate": rate,
            "seconds": round(time.monotonic() - started, 4),
            "waited": round(self.loader.waited - waited, 4),
            "voxels": stage.batch * prod(stage.crop),
            "stop": facts["stop"] > 0,
        }

    def save(self) -> None:
        """Store everything a resumed run needs; random numbers need nothing, each step has its own."""
        content = {
            "step": self.step,
            "best": self.best,
            "shards": self.samples.shards,
            "config": self.config.model_dump_json(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
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

    def _made(self) -> nn.Module:
        torch.manual_seed(self.config.seed)
        network = build(self.config.architecture, self.config.options)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = self.config.norm_momentum
        return network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]

    def _compiled(self, replica: nn.Module) -> Callable[[Tensor], Tensor]:
        logits: Callable[[Tensor], Tensor] = replica.logits  # type: ignore[assignment]
        return torch.compile(logits) if self.config.compile else logits

    def _loader(self) -> Loader:
        threads = self.config.loaders or default_threads(self.device, self.group.size)
        steps = range(self.step, self.config.steps)
        return Loader(self.samples, self.shards, steps, self.device, threads, self.config.ahead)

    def _fresh_optimiser(self) -> None:
        settings = self.config.optimiser
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.dim() <= 1]
        groups = [{"params": weights, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, fused=self.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "float16")
        self.scaler.scale(torch.zeros((), device=self.device))  # makes its state now: later shards would do so at once

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
        limit = self.config.optimiser.gradient_norm
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        finite = bool(torch.isfinite(norm))
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self.scaler.is_enabled() or self._skipped > _SKIPS):
            self._require_finite(float(norm))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            for buffer, part in zip(_statistics(self.network), parts[len(parameters) :], strict=True):
                buffer.copy_(part.reshape(buffer.shape))
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _require_finite(self, value: float) -> None:
        if math.isfinite(value):
            return
        path = self.output / checkpoint.FILE
        kept, then = "there is no checkpoint yet", "then train again"
        if path.exists():
            kept = f"the checkpoint before it is kept in {path}"
            then = "then train into another output, with initial naming a model if you want to go on from one"
        raise TrainingDiverged(
            f"loss or gradient is {value} in step {self.step + 1}: training has diverged; {kept}. Lower "
            f"optimiser.learning_rate, set optimiser.gradient_norm, or take precision float32 or bfloat16; {then}."
        )

    def _resume(self) -> None:
        stored = checkpoint.load(self.output / checkpoint.FILE, self.config, self.samples.shards)
        if stored is None:
            return
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.scaler.load_state_dict(stored["scaler"])
        before = TrainConfig.model_validate_json(stored["config"])
        same_volumes = before.validation == self.config.validation  # scores on others cannot be compared
        self.step, self.best = int(stored["step"]), float(stored["best"]) if same_volumes else -math.inf
        if self.config.begins_from_best(self.step) and not before.begins_from_best(self.step):
            self.start_from_best()  # a stage added to a finished training
            if self.group.rank == 0:
                self.save()  # a later best must not become this start after a kill
        log.info("going on from step %d", self.step)

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


def _tensors(network: nn.Module) -> Iterable[Tensor]:
    return [*network.parameters(), *network.buffers()]
