"""Unlabelled volumes in memory, as stored: slices are restored at their own voxel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.training.raw import existing, name_of, slices, stored_grey, uint8_grey
from pipeline.training.sources import RawSource


@dataclass(frozen=True)
class Stack:
    """The grey levels of one volume, uint8 (z, y, x), in memory."""

    name: str
    raw: NDArray[np.uint8]
    weight: float = 1.0


def load_stack(source: RawSource) -> Stack:
    """Read one volume.

    Raises:
        BadInput: nothing readable there, no 3-D grey levels, or slices it does not have.
    """
    if source.raw.endswith(".npz"):
        with np.load(existing(source.raw), allow_pickle=False) as stored:
            raw = uint8_grey(source, stored["raw"])
    else:
        raw, _ = stored_grey(source)
    first, last = slices(source, len(raw))
    return Stack(name_of(source), raw[first:last], source.weight)
