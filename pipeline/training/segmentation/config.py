"""The configuration of the training of a network for mitochondria."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.geometry import Triple
from pipeline.model.normalisation import Normalisation
from pipeline.model.options import OPTIONS, NoOptions, Options
from pipeline.model.pinned import STRICT
from pipeline.settings import SizeNm
from pipeline.training.augment import Augmentation
from pipeline.training.config import TrainingConfig
from pipeline.training.optimiser import Optimiser
from pipeline.training.reading import as_json, checked
from pipeline.training.segmentation.loss import Loss
from pipeline.training.sources import PhantomSource, Positive, Source, VolumeSource

__all__ = ["Optimiser", "PhantomSource", "Source", "TrainConfig", "TrainStage", "VolumeSource", "read_config"]


class TrainStage(BaseModel):
    """Steps with one size of crop. The published training has two: 20,000 of 32x256x256, 10,000 of 36x320x320.

    Attributes:
        steps: optimiser steps of this stage.
        crop: (z, y, x) of a training crop; y = x, multiples of what the network needs (16).
        batch: crops a step, over all shards and processes.
        start: go on from the last weights, or from the best of the stages before, with a fresh optimiser.
    """

    model_config = STRICT

    steps: int = Field(ge=1)
    crop: Triple = (12, 112, 112)
    batch: int = Field(default=4, ge=1)
    start: Literal["last", "best"] = "last"


class TrainConfig(TrainingConfig):
    """Everything that the training of a network depends on, on one kind of device; see also `TrainingConfig`.

    Attributes:
        volumes, validation: labelled tissue; the second also tunes the thresholds at the end.
        voxel_size_nm: (z, y, x) that the model is meant for, written into its specification.
        architecture, options: the network, see `pipeline.model.registry`; without options ours get BatchNorm.
        initial: name or specification (.json) of a model of the same architecture whose weights training starts from;
            random where it is missing.
        stages, loss, augmentation, normalisation: how it learns.
        foreground: share of the crops that hold a randomly drawn foreground voxel.
        freeze_norm_steps: the last steps train with fixed normalisation statistics, as inference has them.
        norm_momentum: of the BatchNorm statistics.
        recalibration_batches: batches without augmentation that set the BatchNorm statistics at the end (0 = keep).
        processes: one a GPU; None is all GPUs here, and one on a CPU. They share every step's batch.
        shards: equal parts of a step's batch, each with BatchNorm statistics of its own; a multiple of `processes`.
            The weights depend on their number, not on the cores: on a CPU each has a thread with single-threaded
            arithmetic, on two busy cores two took half the time of one. None is one a process.
        precision: of the arithmetic in the network; weights, loss and statistics stay float32.
        compile: let torch compile the network: minutes at the start, faster steps on a GPU.
        loaders, ahead: threads of a process that make crops, and batches made ahead; None is chosen from the device.
    """

    said: ClassVar[str] = "the training of a network for mitochondria"

    volumes: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()
    voxel_size_nm: SizeNm
    architecture: str = "resunet-h"
    options: dict[str, Any] = Field(default_factory=lambda fields: _default_options(fields["architecture"]))
    initial: str | None = None
    stages: tuple[TrainStage, ...] = Field(min_length=1)
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    normalisation: Normalisation = Normalisation()
    foreground: float = Field(default=0.7, ge=0.0, le=1.0)
    freeze_norm_steps: int = Field(default=0, ge=0)
    norm_momentum: float = Field(default=0.05, gt=0.0, le=1.0)
    recalibration_batches: int = Field(default=0, ge=0)
    processes: int | None = Field(default=None, ge=1)
    shards: int | None = Field(default=None, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    loaders: int | None = Field(default=None, ge=1)
    ahead: int = Field(default=4, ge=1)
    patch: tuple[Positive, Positive, Positive] = (32, 128, 128)
    overlap: Triple = (8, 32, 32)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        for stage in self.stages:
            if stage.crop[1] != stage.crop[2] or stage.crop[1] % 16 or min(stage.crop) < 1:
                raise ValueError("stages.crop: height and width are equal (crops are turned) and multiples of 16")
            if self.shards is not None and stage.batch % self.shards:
                raise ValueError("stages.batch: a multiple of shards")
        if self.stages[0].start == "best":
            raise ValueError("stages: the first has no stage before it whose best it could start from")
        if any(stage.start == "best" for stage in self.stages) and not self.validation:
            raise ValueError("validation: needed by a stage that starts from the best weights")
        if self.optimiser.decay_steps + self.optimiser.warmup_steps > self.steps or self.freeze_norm_steps > self.steps:
            raise ValueError("stages.steps: warmup_steps + decay_steps, and freeze_norm_steps, are at most their sum")
        if not any(volume.from_step == 0 and volume.weight > 0 for volume in self.volumes):
            raise ValueError("volumes: at least one has from_step 0 and a weight above 0")
        return self

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> TrainStage:
        """The stage that a step (the first is 0) belongs to; the last stage for every later step."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def stage_ends(self) -> dict[int, TrainStage | None]:
        """Number of steps done at the end of each stage, and the stage that follows."""
        following = [*self.stages[1:], None]
        ends = [sum(stage.steps for stage in self.stages[: n + 1]) for n in range(len(self.stages))]
        return dict(zip(ends, following, strict=True))

    def begins_from_best(self, step: int) -> bool:
        """Whether a stage that starts from the best weights begins after `step` steps."""
        following = self.stage_ends().get(step)
        return following is not None and following.start == "best"

    def norm_frozen(self, step: int) -> bool:
        """Whether a step leaves the normalisation statistics as they are."""
        return step >= self.steps - self.freeze_norm_steps


def _default_options(architecture: str) -> dict[str, Any]:
    """Training from nothing needs a normalisation layer; a network of the user's own knows what it needs."""
    return {"norm": "batch"} if issubclass(OPTIONS.get(architecture, NoOptions), Options) else {}


def read_config(path: Path) -> TrainConfig:
    """The configuration in a JSON or YAML file.

    Raises:
        BadInput: no such file, or keys and values that are no training configuration; all of them at once.
    """
    return checked(as_json(path), TrainConfig, path)
