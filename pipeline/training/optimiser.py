"""How a network learns: Adam, its learning rate over the steps, weight decay and clipping."""

from __future__ import annotations

import math

from pydantic import BaseModel, Field

from pipeline.model.pinned import STRICT


class Optimiser(BaseModel):
    """Adam and its learning rate: linear warm-up, plateau, drops at given steps, cosine to 0 at the end.

    `published()` is the reference's: 1e-4, warm-up over 1000 steps from 1e-7, a drop to a tenth at 300,000, weight
    decay 1e-4 on weights and none on biases, no clipping.

    Attributes:
        learning_rate: on the plateau.
        warmup_from, warmup_steps: where the linear rise starts, and how long it takes.
        drops, drop_factor: steps from which the rate is multiplied by the factor, once each.
        decay_steps: the last steps, over which the rate falls as a cosine to 0.
        weight_decay: L2 on the weights of convolutions; biases and normalisation layers have none.
        gradient_norm: gradients are scaled down to at most this norm; None leaves them.
    """

    model_config = STRICT

    learning_rate: float = Field(default=2e-3, gt=0.0)
    warmup_from: float = Field(default=0.0, ge=0.0)
    warmup_steps: int = Field(default=100, ge=0)
    drops: tuple[int, ...] = ()
    drop_factor: float = Field(default=0.1, gt=0.0, le=1.0)
    decay_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    gradient_norm: float | None = Field(default=1.0, gt=0.0)

    @classmethod
    def published(cls) -> Optimiser:
        """The reference's settings."""
        return cls(
            learning_rate=1e-4,
            warmup_from=1e-7,
            warmup_steps=1000,
            drops=(300_000,),
            weight_decay=1e-4,
            gradient_norm=None,
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step (the first is 0) of a training of `steps` steps."""
        rate = self.learning_rate * self.drop_factor ** sum(step >= drop for drop in self.drops)
        if step < self.warmup_steps:
            return self.warmup_from + (rate - self.warmup_from) * (step + 1) / self.warmup_steps
        passed = step - (steps - self.decay_steps)
        return rate if passed < 0 else rate * 0.5 * (1.0 + math.cos(math.pi * passed / self.decay_steps))
