"""The training loop: `train(config)` goes on from the last checkpoint and ends with a model ready for inference.

From a shell: `python -m pipeline.training.train CONFIG.json`.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.resunet_h import ResUNetH
from pipeline.model.spec import load_spec, spec_path
from pipeline.training import checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.export import export
from pipeline.training.loss import weighted_bce
from pipeline.training.samples import Samples
from pipeline.training.thresholds import tuned
from pipeline.training.validation import validate
from pipeline.training.volumes import LabelledVolume, load_volume

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train, or go on training, and write NAME.json and NAME.safetensors into the output directory.

    Returns:
        The path of the specification NAME.json, which `load_model` takes.

    Raises:
        BadInput: a volume cannot be used, or the output directory holds a run of another configuration.
    """
    output = Path(os.path.expandvars(config.output))
    output.mkdir(parents=True, exist_ok=True)
    volumes = [load_volume(source, config) for source in config.volumes]
    validation = [load_volume(source, config) for source in config.validation]
    run = TrainingRun(config, Samples(volumes, config), output)
    run.finish(validation)
    run.recalibrate()
    return export(run.average, config, output, tuned(run.average, validation, config) if validation else None)


class TrainingRun:
    """The state of a training run: network, running average, optimiser, step."""

    def __init__(self, config: TrainConfig, samples: Samples, output: Path) -> None:
        self.config, self.samples, self.output = config, samples, output
        torch.manual_seed(config.seed)
        self.network = _network(config)
        if config.initial:
            self.network.load_state_dict(initial_weights(config.initial, config))
        self.average = _network(config).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.replicas = [copy.deepcopy(self.network) for _ in range(config.shards)]
        self.pool = ThreadPoolExecutor(config.shards, initializer=_single_threaded)
        self.step = 0
        self._resume()

    def finish(self, validation: Iterable[LabelledVolume]) -> None:
        """Take all steps that are left; log, validate and save on the way."""
        validation = list(validation)
        while self.step < self.config.steps:
            started = time.monotonic()
            loss = self.advance()
            self._record({"step": self.step, "loss": loss, "seconds": round(time.monotonic() - started, 3)})
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save()
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                for volume in validation:
                    scores = validate(self.average, volume, self.config)
                    self._record({"step": self.step, "validation": volume.name, **scores})

    def advance(self) -> float:
        """One step of the optimiser; returns its loss."""
        losses = list(self.pool.map(self._shard, range(self.config.shards)))
        with torch.no_grad():
            for number, parameter in enumerate(self.network.parameters()):
                parameter.grad = _mean([list(replica.parameters())[number].grad for replica in self.replicas])
            for number, buffer in enumerate(self.network.buffers()):
                buffer.copy_(_mean([list(replica.buffers())[number] for replica in self.replicas]))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_norm)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return sum(losses) / len(losses)

    def _shard(self, shard: int) -> float:
        """Gradients of one part of the batch, left in its replica; returns its loss."""
        replica = self.replicas[shard]
        replica.load_state_dict(self.network.state_dict())
        _set_mode(replica, self.config.norm_frozen(self.step))
        inputs, labels = self.samples.batch(self.step, shard)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            logits = replica.logits(inputs.to(memory_format=torch.channels_last_3d))
        loss = weighted_bce(logits.float(), labels, self.config.fraction_clip)
        replica.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def save(self) -> None:
        """Store everything a resumed run needs; random numbers need nothing, each step has its own."""
        content = {
            "step": self.step,
            "config": self.config.model_dump_json(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        checkpoint.save(self.output / checkpoint.FILE, content)

    def recalibrate(self) -> None:
        """Set the BatchNorm statistics of the average to their mean over batches without augmentation."""
        norms = [module for module in self.average.modules() if isinstance(module, nn.BatchNorm3d)]
        if not self.config.recalibration_batches or not norms:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean
        self.average.train()
        with torch.no_grad():
            for number in range(self.config.recalibration_batches):
                self.average.logits(self.samples.batch(self.config.steps + number, augmented=False)[0])
        self.average.eval()

    def _resume(self) -> None:
        stored = checkpoint.load(self.output / checkpoint.FILE, self.config)
        if stored is None:
            return
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.step = int(stored["step"])
        log.info("going on from step %d", self.step)

    def _update_average(self) -> None:
        """The decay starts low, so that the first, poor weights are soon forgotten."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(_tensors(self.average), _tensors(self.network), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)

    def _record(self, entry: dict[str, Any]) -> None:
        log.info("%s", entry)
        with (self.output / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _network(config: TrainConfig) -> ResUNetH:
    network = ResUNetH(config.widths, config.norm, config.padding)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = config.norm_momentum
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def initial_weights(initial: str, config: TrainConfig) -> dict[str, Tensor]:
    """The weights of another model.

    Raises:
        BadInput: no such model, or one of another architecture.
    """
    from pipeline.model.load import checked_tensors

    path = spec_path(os.path.expandvars(initial))
    spec = load_spec(path)
    for field in ("widths", "norm", "padding"):
        if getattr(spec, field) != getattr(config, field):
            raise BadInput(
                f"{field} {getattr(config, field)} with initial {initial}",
                f"a network that starts from another has its {field}",
                "the weights fit no other",
                f"That model has {getattr(spec, field)}.",
            )
    return checked_tensors(path.parent / spec.weights, spec)


def _set_mode(network: ResUNetH, norm_frozen: bool) -> None:
    network.train()
    for module in network.modules():
        if norm_frozen and isinstance(module, nn.BatchNorm3d):
            module.eval()


def _single_threaded() -> None:
    """The number of arithmetic threads is a property of the calling thread, and so is the rounding of denormals."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _mean(tensors: Sequence[Tensor | None]) -> Tensor:
    given = [tensor for tensor in tensors if tensor is not None]
    return given[0] if len(given) == 1 else torch.stack(given).sum(0).div(len(given)).to(given[0].dtype)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def read_config(path: Path) -> TrainConfig:
    """The configuration in a JSON file; unknown keys are refused by pydantic's ValidationError."""
    return TrainConfig.model_validate_json(path.read_text())


def main(arguments: list[str]) -> int:
    """`python -m pipeline.training.train CONFIG.json`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    log.info("wrote %s", train(read_config(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
