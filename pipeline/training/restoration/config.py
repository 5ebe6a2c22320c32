"""The configuration of the training of a restorer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.model.restorer_spec import Unsharp, fill_options
from pipeline.settings import SizeNm
from pipeline.training.config import TrainingConfig
from pipeline.training.optimiser import Optimiser
from pipeline.training.sources import Positive, RawSource

PatchSize = tuple[Positive, Positive]


class RestorationConfig(TrainingConfig):
    """Everything that the training of a restorer depends on, on one machine; see also `TrainingConfig`.

    Attributes:
        task: interpolation learns to make a slice from its two neighbours, noise2noise to take the noise from a slice
            by the example of its neighbour.
        volumes, validation: grey levels without labels.
        voxel_size_nm: (z, y, x) of the training, written into the specification for people.
        options: keyword arguments of the network.
        unsharp: sharpening after noise2noise, written into the specification.
        steps, crop, batch: optimiser steps, crops (y, x; y = x) and how many a step.
        gaps: numbers of missing slices, drawn from with equal chance; (1, 1, 2) has a third of the samples inside a gap
            of two. The target of a wider gap is any of its slices, at its fraction of the way.
        loss: what it learns by; grey levels are 0..1.
        is_balanced: a crop's loss is divided by that of the mean of its neighbours (noise2noise: of its input), so that
            smooth volumes count as much as rough ones.
        precision: of the arithmetic in the network; weights and loss stay float32.
        patch, overlap: (y, x).
    """

    said: ClassVar[str] = "a restorer's training"

    task: Literal["interpolation", "noise2noise"]
    volumes: tuple[RawSource, ...] = Field(min_length=1)
    validation: tuple[RawSource, ...] = ()
    voxel_size_nm: SizeNm | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    unsharp: Unsharp | None = None
    steps: int = Field(ge=1)
    crop: PatchSize = (128, 128)
    batch: int = Field(default=4, ge=1)
    gaps: tuple[Positive, ...] = Field(default=(1,), min_length=1)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3)
    loss: Literal["mse", "l1"] = "mse"
    is_balanced: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    patch: PatchSize = (256, 256)
    overlap: tuple[int, int] = (32, 32)

    @model_validator(mode="after")
    def _consistent(self) -> RestorationConfig:
        if self.crop[0] != self.crop[1]:
            raise ValueError("crop: height and width are equal, crops are transposed")
        if self.optimiser.decay_steps + self.optimiser.warmup_steps > self.steps:
            raise ValueError("steps: optimiser.warmup_steps + decay_steps are at most their number")
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
