"""One box of the phantom before it gets grey values: coordinates, mitochondria and their depths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, FloatVec3, Triple, Vec3
from pipeline.phantom.mitochondria import Mitochondria, mitochondria
from pipeline.phantom.noise import Floats, interpolated, lattice_steps, value_noise
from pipeline.phantom.shapes import Doubles, depth

RIM_NM = -40.0  # how far outside a mitochondrion its depth is known at full resolution
FAR_NM = -320.0  # and on the coarse lattice
COARSE_NM = 60.0
_COARSE_MARGIN = 2  # lattice points beyond the box: a vesicle's centre may stand outside it
_ROUGHNESS_NM = 8.0


@dataclass(frozen=True)
class Coarse:
    """The coarse lattice around a box, fixed to the volume: its points stand at multiples of ``steps`` voxels.

    Attributes:
        box: lattice indices; axes: coordinates of the points, nm.
        outside: float32, distance to the nearest mitochondrion, nm, at most ``-FAR_NM``.
    """

    box: Box
    steps: Vec3
    axes: list[Doubles]
    outside: Floats

    def to(self, field: Floats, box: Box) -> Floats:
        """A field of this lattice, interpolated to the voxels of ``box``."""
        return interpolated(field, self.box.start, box, self.steps)


@dataclass(frozen=True)
class Scene:
    """What the grey values and the labels of one box are made from.

    Attributes:
        seed, size: of the phantom; size is the voxel, nm. box: the voxels; axes: their coordinates, nm.
        found: the mitochondria near.
        depth: (z, y, x) float32 nm in the deepest mitochondrion, at least ``RIM_NM``; second: in the next.
        owner: int16, index into ``found`` of the deepest, -1 where there is none near.
        wobble: float32 smooth noise of deviation 1 that roughens all surfaces.
    """

    seed: int
    size: FloatVec3
    box: Box
    axes: list[Doubles]
    found: Mitochondria
    depth: Floats
    second: Floats
    owner: NDArray[np.int16]
    wobble: Floats

    def surface(self) -> Floats:
        """The depth below the rough surface, nm: positive inside a mitochondrion."""
        # The roughness climbs by less than 1 nm a nm, so that it cannot cut off an island.
        return self.depth + np.clip(self.wobble, np.float32(-2), np.float32(2)) * np.float32(_ROUGHNESS_NM)

    def noise(self, stream: int, spacing_nm: float) -> Floats:
        """Smooth noise at every voxel."""
        return value_noise(self.seed, stream, self.box, lattice_steps(spacing_nm, self.size))

    def coarse(self) -> Coarse:
        """The coarse lattice around the box."""
        steps = lattice_steps(COARSE_NM, self.size)
        box = Box(self.box.start // steps, (self.box.stop - 1) // steps + 2).grown(_COARSE_MARGIN)
        axes = _coordinates(box, steps, self.size)
        return Coarse(box, steps, axes, _distance_outside(self.found, axes))


def scene(seed: int, size: FloatVec3, box: Box) -> Scene:
    """Gather and draw the mitochondria of ``box``; ``size`` is the voxel in nm, z, y, x."""
    axes = _coordinates(box, (1, 1, 1), size)
    beyond = (_COARSE_MARGIN + 1) * np.maximum(COARSE_NM, np.array(size)) - FAR_NM
    low, high = np.array([axis[0] for axis in axes]), np.array([axis[-1] for axis in axes])
    found = mitochondria(seed, low - beyond, high + beyond)
    best = np.full(box.shape, RIM_NM, np.float32)
    second = best.copy()
    owner = np.full(box.shape, -1, np.int16)
    for number in range(len(found)):
        drawn = depth(found.chains, number, axes, RIM_NM)
        if drawn is not None:
            part, new = drawn
            wins = new > best[part]  # a tie stays with the lower id
            second[part] = np.maximum(second[part], np.minimum(best[part], new))
            owner[part][wins] = number
            np.maximum(best[part], new, out=best[part])
    wobble = value_noise(seed, 21, box, lattice_steps(150.0, size))
    return Scene(seed, size, box, axes, found, best, second, owner, wobble)


def _coordinates(box: Box, steps: Triple, size: FloatVec3) -> list[Doubles]:
    return [
        np.arange(a, b, dtype=np.int64).astype(np.float64) * (step * nm)
        for a, b, step, nm in zip(box.start, box.stop, steps, size, strict=True)
    ]


def _distance_outside(found: Mitochondria, axes: list[Doubles]) -> Floats:
    """Distance to the nearest mitochondrion on the coarse lattice, nm, at most ``-FAR_NM``."""
    nearest = np.full([len(axis) for axis in axes], FAR_NM, np.float32)
    for number in range(len(found)):
        drawn = depth(found.chains, number, axes, FAR_NM)
        if drawn is not None:
            np.maximum(nearest[drawn[0]], drawn[1], out=nearest[drawn[0]])
    return -nearest
