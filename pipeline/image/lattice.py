"""The patch lattice: fixed to the volume, never to a block, so that any block grid gives the same prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.geometry import Box, Vec3, vec3

WeightKind = Literal["bump", "gaussian", "crop"]
Weights = npt.NDArray[np.float32]

# Published blending (MitoEM2021 challenge code): Gaussian of the radius in coordinates -1..1, sigma 0.2, on a floor.
GAUSSIAN_SIGMA = 0.2
FLOOR = 1e-4
BUMP_EXPONENT = 1.5


@dataclass(frozen=True, slots=True)
class Lattice:
    """All patches of a volume: the first at 0, a constant stride, the last tucked in to end at the border.

    ``extent``, ``patch``, ``overlap`` are voxels z, y, x with ``overlap < patch <= extent``.
    """

    extent: Vec3
    patch: Vec3
    overlap: Vec3

    def starts(self, axis: int) -> list[int]:
        """First voxels of the patches along one axis."""
        last = self.extent[axis] - self.patch[axis]
        stride = self.patch[axis] - self.overlap[axis]
        return [*range(0, last, stride), last]

    def __len__(self) -> int:
        nz, ny, nx = (len(self.starts(axis)) for axis in range(3))
        return nz * ny * nx

    def touching(self, box: Box, kind: WeightKind) -> Iterator[Box]:
        """The patches whose weights reach into ``box``, z first, in lattice order."""
        for start in map(vec3, product(*(self.starts_touching(axis, box, kind) for axis in range(3)))):
            yield Box(start, start + self.patch)

    def owned(self, start: int, axis: int) -> tuple[int, int]:
        """The span a patch serves with ``crop`` weights: up to the middle of each overlap, or to the border."""
        starts = self.starts(axis)
        place = starts.index(start)
        patch = self.patch[axis]
        low = 0 if place == 0 else (start + starts[place - 1] + patch + 1) // 2
        high = self.extent[axis] if place == len(starts) - 1 else (starts[place + 1] + start + patch + 1) // 2
        return low, high

    def weights(self, patch: Box, kind: WeightKind) -> Weights:
        """The blending weights of one patch, float32 of its shape."""
        if kind == "crop":
            return self._crop_weights(patch)
        return blending_weights(self.patch, kind)

    def starts_touching(self, axis: int, box: Box, kind: WeightKind) -> list[int]:
        """First voxels, along one axis, of the patches whose weights reach into ``box``."""
        a, b = box.start[axis], box.stop[axis]
        if kind == "crop":
            spans = ((start, self.owned(start, axis)) for start in self.starts(axis))
            return [start for start, (low, high) in spans if low < b and a < high]
        return [start for start in self.starts(axis) if start < b and a < start + self.patch[axis]]

    def _crop_weights(self, patch: Box) -> Weights:
        spans = [self.owned(start, axis) for axis, start in enumerate(patch.start)]
        inside = Box(vec3(low for low, _ in spans), vec3(high for _, high in spans))
        weights = np.zeros(self.patch, np.float32)
        weights[inside.slices(patch.start)] = 1.0
        return weights


@lru_cache(maxsize=8)
def blending_weights(patch: Vec3, kind: Literal["bump", "gaussian"]) -> Weights:
    """Weights of a patch, float32 z y x, positive everywhere.

    ``gaussian``: ``1e-4 + exp(-r^2 / (2 * 0.2^2))``, r the Euclidean radius in coordinates -1..1 at the outermost voxel
    centres (the published one). ``bump``: per axis ``exp(-1 / (1 - t^2)^1.5)`` scaled to 1 at the centre on the same
    floor, t in -1..1 at the patch faces; it trusts a wider middle than the Gaussian.
    """
    if kind == "gaussian":
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in patch), indexing="ij")
        return np.asarray(FLOOR + np.exp(-(z**2 + y**2 + x**2) / (2 * GAUSSIAN_SIGMA**2)), np.float32)
    z, y, x = (_bump(n) for n in patch)
    return np.asarray(np.maximum(z[:, None, None] * y[:, None] * x, FLOOR), np.float32)


def _bump(length: int) -> npt.NDArray[np.float64]:
    t = (np.arange(length) + 0.5) / length * 2 - 1
    profile: npt.NDArray[np.float64] = np.exp(1.0 - (1.0 - t**2) ** -BUMP_EXPONENT)
    return profile
