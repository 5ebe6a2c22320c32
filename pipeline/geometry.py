"""Boxes of voxels: integer, half-open, z y x. Physical units live in ``Volume`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

Vec3 = tuple[int, int, int]
FloatVec3 = tuple[float, float, float]


def vec3(values: Iterable[int]) -> Vec3:
    """Three integers z, y, x from any iterable of three."""
    z, y, x = (int(value) for value in values)
    return z, y, x


def float_vec3(values: Iterable[float]) -> FloatVec3:
    """Three floats z, y, x from any iterable of three."""
    z, y, x = (float(value) for value in values)
    return z, y, x


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= voxel < stop``, axes z, y, x."""

    start: Vec3
    stop: Vec3

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """The box from the origin with this z, y, x shape."""
        return cls((0, 0, 0), vec3(shape))

    @property
    def shape(self) -> Vec3:
        """Extent in voxels, z, y, x; never negative."""
        return vec3(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """True when the box holds no voxel."""
        return self.size == 0

    def grown(self, halo: Sequence[int]) -> Box:
        """The box with ``halo`` voxels (z, y, x) more on every side; a negative halo shrinks it."""
        return Box(
            vec3(a - h for a, h in zip(self.start, halo, strict=True)),
            vec3(b + h for b, h in zip(self.stop, halo, strict=True)),
        )

    def clipped(self, box: Box) -> Box:
        """The part of this box inside ``box``; empty (start == stop) where they do not meet."""
        start = vec3(min(max(a, c), d) for a, c, d in zip(self.start, box.start, box.stop, strict=True))
        stop = vec3(max(s, min(b, d)) for s, b, d in zip(start, self.stop, box.stop, strict=True))
        return Box(start, stop)

    def shifted(self, by: Sequence[int]) -> Box:
        """The box moved by ``by`` voxels."""
        return Box(
            vec3(a + s for a, s in zip(self.start, by, strict=True)),
            vec3(b + s for b, s in zip(self.stop, by, strict=True)),
        )

    def contains(self, box: Box) -> bool:
        """True when every voxel of ``box`` is in this box."""
        return all(a <= c for a, c in zip(self.start, box.start, strict=True)) and all(
            d <= b for b, d in zip(self.stop, box.stop, strict=True)
        )

    def slices(self, origin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Index an array whose first voxel stands at ``origin``."""
        z, y, x = (slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, origin, strict=True))
        return z, y, x

    def __str__(self) -> str:
        spans = (f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))
        return f"[{','.join(spans)}]"
