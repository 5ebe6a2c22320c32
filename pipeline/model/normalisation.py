"""Grey levels to network input, decided once for a whole volume, so that no patch depends on its neighbours' choice."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Statistics(NamedTuple):
    """What a volume's histogram decides: network input = (grey - offset) / scale."""

    offset: float
    scale: float


class Normalisation(BaseModel):
    """Map two grey levels to 0 and 1, then clip: two percentiles of the volume, or two fixed ones.

    Percentiles rather than minimum and maximum, since single white or black voxels (charging, stretched slices) would
    otherwise decide. Voxels of grey level 0 are left out: they are padding outside the section.

    Attributes:
        kind: "percentile", or "fixed" as the published networks have it: grey / 255, whatever the volume holds.
        low, high: percentiles, 0..100, of the voxels that are not 0; only for "percentile".
        levels: the two grey levels; only for "fixed".
        clip: the range of the result.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: Literal["percentile", "fixed"] = "percentile"
    low: float = Field(default=1.0, ge=0.0, lt=100.0)
    high: float = Field(default=99.0, gt=0.0, le=100.0)
    levels: tuple[float, float] = (0.0, 255.0)
    clip: tuple[float, float] = (-0.5, 1.5)

    @model_validator(mode="after")
    def _ordered(self) -> Normalisation:
        if not (self.low < self.high and self.levels[0] < self.levels[1] and self.clip[0] < self.clip[1]):
            raise ValueError("low must be below high, and the first of levels and of clip below the second")
        return self

    def statistics(self, histogram: NDArray[np.int64]) -> Statistics:
        """Offset and scale from the counts of the 256 grey levels of a whole volume; any volume gives a usable pair."""
        if self.kind == "fixed":
            return Statistics(self.levels[0], self.levels[1] - self.levels[0])
        counts = np.asarray(histogram, dtype=np.int64).copy()
        counts[0] = 0
        if counts.sum() == 0:
            return Statistics(0.0, 1.0)
        low, high = (_percentile(counts, share) for share in (self.low, self.high))
        return Statistics(float(low), float(max(high - low, 1)))

    def apply(self, raw: NDArray[np.uint8], statistics: tuple[float, float]) -> NDArray[np.float32]:
        """uint8 grey levels of any shape -> float32 network input of the same shape."""
        offset, scale = statistics
        table = (np.arange(256, dtype=np.float32) - np.float32(offset)) / np.float32(scale)
        values: NDArray[np.float32] = np.clip(table, *self.clip)[raw]
        return values


def histogram(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts of the 256 grey levels; the histograms of a volume's blocks add up to the volume's."""
    return np.bincount(raw.ravel(), minlength=256).astype(np.int64)


def _percentile(counts: NDArray[np.int64], share: float) -> int:
    """The lowest grey level that at least `share` percent of the voxels do not exceed (at least one voxel)."""
    running = np.cumsum(counts)
    return int(np.searchsorted(running, max(1.0, share / 100.0 * float(running[-1]))))
