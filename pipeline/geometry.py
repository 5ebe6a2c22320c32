"""Boxes of voxels: integer, half-open, z y x. Physical units live in ``Volume`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import SupportsIndex

Triple = tuple[int, int, int]  # three plain integers z, y, x, as settings hold them
FloatVec3 = tuple[float, float, float]


class Vec3(tuple[int, int, int]):
    """Three integers z, y, x: a tuple whose ``+ - * //`` work axis by axis, with another triple or one integer.

    It compares, hashes, pickles and serialises as the plain tuple of its values. A result holds what the operands
    hold, so numbers of numpy go through :func:`vec3` first. Another length than three raises ValueError, so that
    nothing is ever concatenated.
    """

    __slots__ = ()

    def __add__(self, other: Triple | int) -> Vec3:  # type: ignore[override]
        if not isinstance(other, tuple | int):
            return NotImplemented
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a + z, b + y, c + x))

    __radd__ = __add__  # a plain tuple on the left would concatenate

    def __sub__(self, other: Triple | int) -> Vec3:
        if not isinstance(other, tuple | int):
            return NotImplemented
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a - z, b - y, c - x))

    def __mul__(self, other: Triple | int) -> Vec3:  # type: ignore[override]
        if not isinstance(other, tuple | int):
            return NotImplemented
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a * z, b * y, c * x))

    __rmul__ = __mul__  # type: ignore[assignment]

    def __floordiv__(self, other: Triple | int) -> Vec3:
        if not isinstance(other, tuple | int):
            return NotImplemented
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a // z, b // y, c // x))

    def ceil_div(self, other: Triple | int) -> Vec3:
        """Each value divided by the other's, rounded up."""
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((-(-a // z), -(-b // y), -(-c // x)))

    def min(self, other: Triple | int) -> Vec3:
        """The smaller value of each axis."""
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a if a < z else z, b if b < y else y, c if c < x else x))

    def max(self, other: Triple | int) -> Vec3:
        """The larger value of each axis."""
        (a, b, c), (z, y, x) = self, _three(other)
        return Vec3((a if a > z else z, b if b > y else y, c if c > x else x))

    def all_below(self, other: Triple | int) -> bool:
        """True when each value is smaller than the other's."""
        (a, b, c), (z, y, x) = self, _three(other)
        return a < z and b < y and c < x

    def all_at_most(self, other: Triple | int) -> bool:
        """True when no value is larger than the other's."""
        (a, b, c), (z, y, x) = self, _three(other)
        return a <= z and b <= y and c <= x

    def is_multiple_of(self, other: Triple | int) -> bool:
        """True when each value is a whole multiple of the other's."""
        (a, b, c), (z, y, x) = self, _three(other)
        return not (a % z or b % y or c % x)


def _three(value: Triple | int) -> Triple:
    return (value, value, value) if isinstance(value, int) else value


def vec3(values: Iterable[SupportsIndex]) -> Vec3:
    """Three integers z, y, x from any iterable of three, also of numpy's; ValueError for another number of them."""
    z, y, x = values
    return Vec3((int(z), int(y), int(x)))


def float_vec3(values: Iterable[float]) -> FloatVec3:
    """Three floats z, y, x from any iterable of three."""
    z, y, x = (float(value) for value in values)
    return z, y, x


ORIGIN = Vec3((0, 0, 0))


@dataclass(frozen=True, slots=True, init=False)
class Box:
    """A half-open box of voxels, ``start <= voxel < stop``, axes z, y, x; any tuples of three integers make one."""

    start: Vec3
    stop: Vec3

    def __init__(self, start: Triple, stop: Triple) -> None:
        object.__setattr__(self, "start", start if type(start) is Vec3 else vec3(start))
        object.__setattr__(self, "stop", stop if type(stop) is Vec3 else vec3(stop))

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """The box from the origin with this z, y, x shape."""
        return cls(ORIGIN, vec3(shape))

    @property
    def shape(self) -> Vec3:
        """Extent in voxels, z, y, x; never negative."""
        return (self.stop - self.start).max(0)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """True when the box holds no voxel."""
        return self.size == 0

    def grown(self, halo: Triple | int) -> Box:
        """The box with ``halo`` voxels (z, y, x; or one number) more on every side; a negative halo shrinks it."""
        return Box(self.start - halo, self.stop + halo)

    def clipped(self, box: Box) -> Box:
        """The part of this box inside ``box``; empty (start == stop) where they do not meet."""
        start = self.start.max(box.start).min(box.stop)
        return Box(start, self.stop.min(box.stop).max(start))

    def shifted(self, by: Triple) -> Box:
        """The box moved by ``by`` voxels."""
        return Box(self.start + by, self.stop + by)

    def contains(self, box: Box) -> bool:
        """True when every voxel of ``box`` is in this box."""
        return self.start.all_at_most(box.start) and box.stop.all_at_most(self.stop)

    def slices(self, origin: Triple = ORIGIN) -> tuple[slice, slice, slice]:
        """Index an array whose first voxel stands at ``origin``."""
        z, y, x = map(slice, self.start - origin, self.stop - origin)
        return z, y, x

    def __str__(self) -> str:
        spans = map("{}:{}".format, self.start, self.stop)
        return f"[{','.join(spans)}]"
