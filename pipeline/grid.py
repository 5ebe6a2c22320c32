"""A tiling of an extent into blocks, addressed by number and never materialised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from pipeline.geometry import Box, Triple, Vec3, vec3


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a grid: its number, its z, y, x index and the core it writes."""

    number: int
    index: Vec3
    core: Box


@dataclass(frozen=True, slots=True, init=False)
class BlockGrid:
    """Tiling of ``extent`` (voxels, z, y, x) by blocks of shape ``block``; the last ones may be smaller.

    Blocks are numbered with x fastest. ``grid[number]`` makes a block on demand, so 10^6 blocks cost nothing.
    """

    extent: Vec3
    block: Vec3

    def __init__(self, extent: Triple, block: Triple) -> None:
        object.__setattr__(self, "extent", vec3(extent))
        object.__setattr__(self, "block", vec3(block))

    @property
    def shape(self) -> Vec3:
        """Blocks per axis, z, y, x."""
        return self.extent.ceil_div(self.block)

    @property
    def padded_extent(self) -> Vec3:
        """The extent rounded up to whole blocks: the shape of a stored intermediate array."""
        return self.shape * self.block

    def __len__(self) -> int:
        return prod(self.shape)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Block:
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        _, ny, nx = self.shape
        return self.at((number // (ny * nx), number // nx % ny, number % nx))

    def at(self, index: Triple) -> Block:
        """The block at this z, y, x index."""
        index = vec3(index)
        start = index * self.block
        core = Box(start, start + self.block).clipped(Box.of_shape(self.extent))
        return Block(self.number_of(index), index, core)

    def number_of(self, index: Triple) -> int:
        """The number of the block at a z, y, x index."""
        _, ny, nx = self.shape
        return (index[0] * ny + index[1]) * nx + index[2]

    def has(self, index: Triple) -> bool:
        """True when the index lies in the grid."""
        return min(index) >= 0 and vec3(index).all_below(self.shape)

    def covering(self, box: Box) -> Iterator[Block]:
        """The blocks whose cores meet ``box``, in order of their numbers."""
        box = box.clipped(Box.of_shape(self.extent))
        if box.is_empty:
            return iter(())
        z, y, x = map(range, box.start // self.block, box.stop.ceil_div(self.block))
        return map(self.at, product(z, y, x))
