"""Probabilities and grey levels as 8 bits, the same way everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Float32, UInt8
from pipeline.errors import BadInput


def to_uint8(probability: NDArray[Any], name: str = "a probability map") -> NDArray[np.uint8]:
    """Quantise probabilities 0..1 of any float dtype and shape to 0..255 by ``floor(255 p + 0.5)``.

    A uint8 map is taken as already quantised and returned as it is. ``name`` says in messages which map it is.

    Raises:
        BadInput: a value is NaN or outside 0..1, or the dtype is neither float nor uint8.
    """
    if probability.dtype == np.uint8:
        return probability
    if not np.issubdtype(probability.dtype, np.floating):
        raise BadInput(
            f"{name} of dtype {probability.dtype}",
            "must be uint8 (0..255) or floating point (0..1)",
            "the scale of any other dtype is a guess",
        )
    # min and max carry a NaN along, and a comparison with NaN is false: one test holds for both faults.
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise BadInput(
            f"{name} with values {probability.min():g}..{probability.max():g}",
            "must lie in 0..1 without NaN",
            "it is stored as 255 levels",
            "Divide by its maximum, or give a uint8 map.",
        )
    return np.floor(probability * 255.0 + 0.5).astype(np.uint8)


def rounded(grey: Float32) -> UInt8:
    """Grey levels rounded to the nearest of 256, halves up, as the training volumes were."""
    return np.asarray(np.floor(grey + np.float32(0.5)), np.uint8)


def quantised(probability: Float32) -> UInt8:
    """Probabilities 0..1 as uint8 at the one fixed scale: ``floor(p * 255 + 0.5)``; 0 -> 0 and 1 -> 255."""
    return np.asarray(np.floor(np.clip(probability, 0.0, 1.0) * np.float32(255) + np.float32(0.5)), np.uint8)
