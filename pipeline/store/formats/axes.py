"""Which axes of a stored array are z, y and x: the one place that decides it, for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pipeline.arrays import Array
from pipeline.errors import BadInput
from pipeline.geometry import Box

_T = TypeVar("_T")

SPACE = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Axes:
    """Where z, y and x are among the ``count`` axes of a stored array; every other axis has length 1.

    ``places`` are the numbers of the stored axes that are z, y and x, in this order.
    """

    places: tuple[int, int, int]
    count: int

    @property
    def in_place(self) -> bool:
        """True where the stored order is already z, y, x, so that nothing is transposed."""
        return self.places[0] < self.places[1] < self.places[2]

    def zyx(self, values: Sequence[_T]) -> tuple[_T, _T, _T]:
        """The entries of z, y and x, from one entry for each stored axis (a shape, a chunk, a scale, units)."""
        z, y, x = self.places
        return values[z], values[y], values[x]

    def read(self, stored: Any, box: Box) -> Array:
        """The voxels of ``box``, z y x, from anything that numpy indexes; only the box itself is read."""
        index = self._index(box)
        found = np.asarray(stored[index])
        return found if self.in_place else found.transpose(np.argsort(np.argsort(self.places)))

    def write(self, stored: Any, box: Box, array: Array) -> None:
        """Store ``array``, z y x, at ``box``."""
        stored[self._index(box)] = array if self.in_place else array.transpose(np.argsort(self.places))

    def _index(self, box: Box) -> tuple[int | slice, ...]:
        slices = dict(zip(self.places, box.slices(), strict=True))
        return tuple(slices.get(axis, 0) for axis in range(self.count))


def found_axes(what: str, shape: Sequence[int], names: Sequence[str | None] | None = None) -> Axes:
    """Find z, y and x by the names of the axes; without names they are the last three in this order.

    An axis of length 1 that is not z, y or x (a channel, a time, samples) is passed over wherever it stands. Without
    names, axes of length 1 are passed over from the front until three are left; with more than three long axes
    the array is none of ours.

    Args:
        what: the array in the user's words, for the error.
        shape: of the stored array.
        names: one for each stored axis, in any case; None where the file names none of them. Names that tell nothing
            (None, empty, ``dim_0``, ``phony_dim_0``) count as no names, if no axis has a better one.

    Raises:
        BadInput: the names are not z, y and x once each, or other axes are longer than 1.
    """
    known = _known(names, len(shape))
    places = _unnamed(shape) if known is None else _named(known)
    if places is not None and all(shape[axis] == 1 for axis in range(len(shape)) if axis not in places):
        return Axes(places, len(shape))
    told = f"its shape is {tuple(int(n) for n in shape)}"
    if known is not None:
        told += f", its axes are {', '.join(name or 'without a name' for name in known)}"
    raise BadInput(
        what,
        "a volume has the three axes z, y and x once each (in any order, by their names); others have length 1",
        told,
        "Save one channel and time point as z, y, x, or correct the names of the axes.",
    )


def _known(names: Sequence[str | None] | None, count: int) -> list[str] | None:
    """The names in lower case; None where they tell nothing."""
    if names is None or len(names) != count:
        return None
    lower = [(name or "").strip().lower() for name in names]
    telling = [name for name in lower if name and not name.startswith(("dim_", "phony_dim_"))]
    return lower if telling else None


def _named(names: Sequence[str]) -> tuple[int, int, int] | None:
    if any(names.count(axis) != 1 for axis in SPACE):
        return None
    z, y, x = (names.index(axis) for axis in SPACE)
    return z, y, x


def _unnamed(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """The axes that are left when those of length 1 are passed over, from the front, until three are left."""
    left = list(range(len(shape)))
    for axis in range(len(shape)):
        if len(left) > 3 and shape[axis] == 1:
            left.remove(axis)
    return (left[0], left[1], left[2]) if len(left) == 3 else None
