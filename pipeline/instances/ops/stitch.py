"""Which fragments of neighbouring blocks touch: read from the blocks' outermost planes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import ORIGIN, Triple, Vec3, vec3
from pipeline.instances.ops.label import Connectivity

_Plane = NDArray[np.unsignedinteger[Any]]

# Axes in which two connected voxels may differ at once.
AXES_CROSSED: dict[int, int] = {6: 1, 18: 2, 26: 3}
_NAMES = (("z_low", "z_high"), ("y_low", "y_high"), ("x_low", "x_high"))


@dataclass(frozen=True, slots=True)
class Rim:
    """The six face planes of a block's labels by name (``z_low`` ...): unsigned, three axes z, y, x kept.

    The plane across ``axis`` has length 1 there and the block's length on the other two axes.
    """

    arrays: Mapping[str, _Plane]

    def plane(self, axis: int, high: bool) -> _Plane:
        """The first or last (``high``) plane across an axis."""
        return self.arrays[_NAMES[axis][high]]

    def to_arrays(self) -> dict[str, _Plane]:
        """The planes by name (``z_low`` ... ``x_high``), to store."""
        return {name: self.arrays[name] for names in _NAMES for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, _Plane]) -> Rim:
        """The rim that ``to_arrays`` gave; of a mapping that reads on demand only the planes needed are read."""
        return cls(arrays)


def rim(labels: _Plane) -> Rim:
    """Copy the six face planes of a block's labels (z, y, x; any length of at least 1 on each axis)."""
    ends = (slice(0, 1), slice(-1, None))
    return Rim({_NAMES[axis][high]: labels[_at(axis, ends[high])].copy() for axis in range(3) for high in (0, 1)})


def forward_offsets(connectivity: Connectivity) -> list[Vec3]:
    """Half of a block's neighbours, as z, y, x index offsets: every pair of neighbours is met once.

    3 faces for 6-connectivity, with 6 edges 9 for 18, with 4 corners 13 for 26.
    """
    order = AXES_CROSSED[connectivity]
    neighbours = map(vec3, product((-1, 0, 1), repeat=3))
    return [step for step in neighbours if step > ORIGIN and _norm(step) <= order]


def touching_pairs(own: Rim, neighbour: Rim, offset: Triple, connectivity: Connectivity) -> NDArray[np.uint32]:
    """Labels of a block and of its neighbour at ``offset`` that touch.

    Args:
        own: rim of the block.
        neighbour: rim of the block at ``offset`` in the grid; both share their length on the axes not crossed.
        offset: z, y, x index offset, each -1, 0 or 1, not all 0.
        connectivity: 6, 18 or 26.

    Returns:
        (k, 2) uint32 pairs (own label, neighbour's label), each once, ascending.
    """
    ours, theirs = contact(own, offset), contact(neighbour, opposite(offset))
    if not (ours.any() and theirs.any()):
        return np.zeros((0, 2), np.uint32)
    packed = [_packed(ours[a], theirs[b]) for _, a, b in shifts(offset, connectivity)]
    distinct = np.unique(np.concatenate(packed))
    return np.stack((distinct >> np.uint64(32), distinct & np.uint64(0xFFFFFFFF)), axis=1).astype(np.uint32)


def global_pairs(pairs: NDArray[np.uint32], own_offset: int, neighbour_offset: int) -> NDArray[np.int64]:
    """Global fragment numbers, 0-based, of pairs of local labels 1..n; ``offsets = cumsum`` of the blocks' counts."""
    return pairs.astype(np.int64) + np.array([own_offset - 1, neighbour_offset - 1], np.int64)


def contact(side: Rim, offset: Triple) -> _Plane:
    """The plane, line or voxel of a block that faces the neighbour at ``offset``; three axes z, y, x kept."""
    axis = next(axis for axis in range(3) if offset[axis])
    plane = side.plane(axis, offset[axis] > 0)
    for other in range(axis + 1, 3):
        if offset[other]:
            plane = plane[_at(other, slice(-1, None) if offset[other] > 0 else slice(0, 1))]
    return plane


def shifts(offset: Triple, connectivity: Connectivity) -> Iterator[tuple[Vec3, tuple[slice, ...], tuple[slice, ...]]]:
    """Index pairs that lay each voxel of a contact over one of its connected voxels opposite.

    Yields the step z, y, x from the one voxel to the other, and the indices into both contacts.
    """
    order = AXES_CROSSED[connectivity]
    choices = [(0,) if step else (0, -1, 1) for step in offset]
    for shift in map(vec3, product(*choices)):
        if _norm(offset) + _norm(shift) <= order:
            yield shift + offset, tuple(_trimmed(-s) for s in shift), tuple(_trimmed(s) for s in shift)


def opposite(offset: Triple) -> Vec3:
    """The way back."""
    return ORIGIN - offset


def _packed(ours: _Plane, theirs: _Plane) -> NDArray[np.uint64]:
    """Both labels in one uint64 where neither is 0; runs collapsed, as neighbours on a face mostly repeat."""
    both = (ours != 0) & (theirs != 0)
    packed: NDArray[np.uint64] = (ours[both].astype(np.uint64) << np.uint64(32)) | theirs[both]
    changes = np.ones(packed.shape, np.bool_)
    np.not_equal(packed[1:], packed[:-1], out=changes[1:])
    return packed[changes]


def _trimmed(step: int) -> slice:
    """The part of an axis that has a voxel opposite when the other side is moved by ``-step``."""
    return slice(max(step, 0), min(step, 0) or None)


def _at(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if other == axis else slice(None) for other in range(3))


def _norm(offset: tuple[int, ...]) -> int:
    return sum(abs(step) for step in offset)
