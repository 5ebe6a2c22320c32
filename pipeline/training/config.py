"""What the configuration of every training states; ``segmentation.config`` and ``restoration.config`` add their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.model.pinned import STRICT
from pipeline.training.optimiser import Optimiser


class TrainingConfig(BaseModel):
    """The fields that all trainings have; a configuration alone decides the weights that come out of it.

    Attributes:
        name, description: of what comes out.
        output: directory of checkpoints, log, curves and result.
        volumes, validation: the second is never trained on, and selects the best weights.
        optimiser: how the network learns.
        ema_decay: of the running average of the weights, which is what is validated and written.
        select: write the best validated weights, or the last.
        device: auto is cuda where there is a GPU.
        seed: decides weights, crops and augmentation.
        checkpoint_every, validate_every: in steps.
        patch, overlap: of validation, and written into the specification as the default of inference.
    """

    model_config = STRICT
    said: ClassVar[str]
    """How a sentence names such a training."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    description: str = ""
    output: str
    volumes: tuple[Any, ...]
    validation: tuple[Any, ...] = ()
    optimiser: Optimiser = Optimiser()
    ema_decay: float = Field(default=0.995, ge=0.0, lt=1.0)
    select: Literal["best", "last"] = "best"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=100, ge=1)
    patch: tuple[int, ...]
    overlap: tuple[int, ...]

    if TYPE_CHECKING:  # a field of one training, of another the sum over its stages

        @property
        def steps(self) -> int:
            """Steps of the optimiser."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> TrainingConfig:
        if any(not 0 <= shared < size for shared, size in zip(self.overlap, self.patch, strict=True)):
            raise ValueError("overlap: at least 0 and less than the patch in each axis")
        return self

    def rate(self, step: int) -> float:
        """Learning rate of a step (the first is 0)."""
        return self.optimiser.rate(step, self.steps)
