"""A tiling of an extent into blocks, addressed by number and never materialised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from pipeline.geometry import Box, Vec3, vec3


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a grid: its number, its z, y, x index and the core it writes."""

    number: int
    index: Vec3
    core: Box


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Tiling of ``extent`` (voxels, z, y, x) by blocks of shape ``block``; the last ones may be smaller.

    Blocks are numbered with x fastest. ``grid[number]`` makes a block on demand, so 10^6 blocks cost nothing.
    """

    extent: Vec3
    block: Vec3

    @property
    def shape(self) -> Vec3:
        """Blocks per axis, z, y, x."""
        return vec3(-(-e // b) for e, b in zip(self.extent, self.block, strict=True))

    @property
    def padded_extent(self) -> Vec3:
        """The extent rounded up to whole blocks: the shape of a stored intermediate array."""
        return vec3(n * b for n, b in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return prod(self.shape)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Block:
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        _, ny, nx = self.shape
        return self.at((number // (ny * nx), number // nx % ny, number % nx))

    def at(self, index: Vec3) -> Block:
        """The block at this z, y, x index."""
        start = vec3(i * b for i, b in zip(index, self.block, strict=True))
        core = Box(start, vec3(s + b for s, b in zip(start, self.block, strict=True))).clipped(
            Box.of_shape(self.extent)
        )
        return Block(self.number_of(index), index, core)

    def number_of(self, index: Vec3) -> int:
        """The number of the block at a z, y, x index."""
        _, ny, nx = self.shape
        return (index[0] * ny + index[1]) * nx + index[2]

    def has(self, index: Vec3) -> bool:
        """True when the index lies in the grid."""
        return all(0 <= i < n for i, n in zip(index, self.shape, strict=True))

    def covering(self, box: Box) -> Iterator[Block]:
        """The blocks whose cores meet ``box``, in order of their numbers."""
        box = box.clipped(Box.of_shape(self.extent))
        if box.is_empty:
            return
        low = [a // b for a, b in zip(box.start, self.block, strict=True)]
        high = [-(-c // b) for c, b in zip(box.stop, self.block, strict=True)]
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for x in range(low[2], high[2]):
                    yield self.at((z, y, x))
