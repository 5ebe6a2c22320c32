"""The configuration of a restorer's training; it alone decides the weights that come out (on one machine)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.model.restorer_spec import Unsharp, fill_options
from pipeline.training.optimiser import Optimiser
from pipeline.training.sources import STRICT, Positive, RawSource, VoxelSize

Size = tuple[Positive, Positive]


class RestorationConfig(BaseModel):
    """Everything the training of a restorer depends on.

    Attributes:
        task: interpolation learns to make a slice from its two neighbours, noise2noise to take the noise from a slice
            by the example of its neighbour.
        name, description: of the restorer that comes out.
        output: directory of checkpoints, log, curves and result.
        volumes, validation: grey levels without labels; the second is never trained on, and selects the best weights.
        voxel_size_nm: (z, y, x) of the training, written into the specification for people.
        options: keyword arguments of the network.
        unsharp: sharpening after noise2noise, written into the specification.
        steps, crop, batch: optimiser steps, crops (y, x; y = x) and how many a step.
        gaps: numbers of missing slices, drawn from with equal chance; (1, 1, 2) has a third of the samples inside a gap
            of two. The target of a wider gap is any of its slices, at its fraction of the way.
        optimiser, loss: how it learns; grey levels are 0..1.
        is_balanced: a crop's loss is divided by that of the mean of its neighbours (noise2noise: of its input), so that
            smooth volumes count as much as rough ones.
        ema_decay: of the running average of the weights, which is what is validated and written.
        select: write the best validated weights, or the last.
        device: auto is cuda where there is a GPU.
        precision: of the arithmetic in the network; weights and loss stay float32.
        seed: decides weights, crops and augmentation.
        checkpoint_every, validate_every: in steps.
        patch, overlap: (y, x) of validation, and written into the specification as the default of inference.
    """

    model_config = STRICT

    task: Literal["interpolation", "noise2noise"]
    name: str = Field(pattern=r"^[\w.+-]+$")
    description: str = ""
    output: str
    volumes: tuple[RawSource, ...] = Field(min_length=1)
    validation: tuple[RawSource, ...] = ()
    voxel_size_nm: VoxelSize | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    unsharp: Unsharp | None = None
    steps: int = Field(ge=1)
    crop: Size = (128, 128)
    batch: int = Field(default=4, ge=1)
    gaps: tuple[Positive, ...] = Field(default=(1,), min_length=1)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3)
    loss: Literal["mse", "l1"] = "mse"
    is_balanced: bool = True
    ema_decay: float = Field(default=0.995, ge=0.0, lt=1.0)
    select: Literal["best", "last"] = "best"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=100, ge=1)
    patch: Size = (256, 256)
    overlap: tuple[int, int] = (32, 32)

    @model_validator(mode="after")
    def _consistent(self) -> RestorationConfig:
        if self.crop[0] != self.crop[1]:
            raise ValueError("crop: height and width are equal, crops are transposed")
        if self.optimiser.decay_steps + self.optimiser.warmup_steps > self.steps:
            raise ValueError("steps: optimiser.warmup_steps + decay_steps are at most their number")
        if any(not 0 <= shared < size for shared, size in zip(self.overlap, self.patch, strict=True)):
            raise ValueError("overlap: at least 0 and less than the patch in each axis")
        if not any(volume.weight > 0 for volume in self.volumes):
            raise ValueError("volumes: at least one has a weight above 0")
        if self.task == "noise2noise" and self.gaps != (1,):
            raise ValueError("gaps: of interpolation only, noise2noise learns from adjacent slices")
        if self.task == "interpolation" and self.unsharp is not None:
            raise ValueError("unsharp: of noise2noise only")
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> RestorationConfig:
        fill_options(self.task, self.options)
        return self

    @property
    def channels(self) -> int:
        """Slices that the network is given: the two beside a slice, or itself."""
        return 2 if self.task == "interpolation" else 1

    @property
    def depth(self) -> int:
        """Consecutive slices that the widest sample is taken from."""
        return max(self.gaps) + self.channels

    def rate(self, step: int) -> float:
        """Learning rate of a step (the first is 0)."""
        return self.optimiser.rate(step, self.steps)
