"""Union of fragments over super-blocks, level by level, so that no process holds more than one super-block's surface.

A super-block of the lowest level is a box of blocks; one of the next level is up to 2x2x2 of those below. Each joins
the nodes it is made of (fragments, or the open groups of the super-blocks below) by the pairs inside it. A group with a
pair across the super-block's border is *open* and becomes a node of the level above; all others are finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import LAST_UINT64, reduced
from pipeline.instances.ops.merge import components

Index = NDArray[np.int64]


def super_grids(blocks: Vec3, side: int) -> list[BlockGrid]:
    """The grids of super-blocks over a grid of ``blocks`` (z, y, x), finest first, the last one a single super-block.

    Their extents and cores count blocks, not voxels; sides double from level to level.
    """
    grids = [BlockGrid(blocks, (side, side, side))]
    while len(grids[-1]) > 1:
        grids.append(BlockGrid(blocks, vec3(2 * length for length in grids[-1].block)))
    return grids


@dataclass(frozen=True)
class Nodes:
    """What a super-block is made of.

    Attributes:
        voxels, first: uint64, of each node: its size, and the linear index of its first voxel.
        edges: (k, 2) numbers of nodes that touch, any order, repeats allowed.
        crossing: (m, 2) global fragment numbers of touching pairs, the first of a node here, the other one elsewhere.
        crossing_node: the node of each such first fragment.
    """

    voxels: NDArray[np.uint64]
    first: NDArray[np.uint64]
    edges: Index
    crossing: Index
    crossing_node: Index

    @classmethod
    def of_fragments(cls, voxels: NDArray[np.uint64], first: NDArray[np.uint64], spans: Index, pairs: Index) -> Self:
        """The nodes of a super-block of the lowest level: its fragments.

        Args:
            voxels, first: of the fragments in the order of ``spans``.
            spans: (blocks, 2) global fragment numbers ``start, stop`` of its blocks, ascending.
            pairs: (k, 2) global fragment numbers; those with neither end here are left out.
        """
        ends = [_located(spans, pairs[:, side]) for side in (0, 1)]
        here = [end >= 0 for end in ends]
        inside = here[0] & here[1]
        outward, inward = here[0] & ~here[1], here[1] & ~here[0]
        crossing = np.concatenate([pairs[outward], pairs[inward][:, ::-1]])
        node = np.concatenate([ends[0][outward], ends[1][inward]])
        return cls(voxels, first, np.stack([end[inside] for end in ends], axis=1), crossing, node)

    @classmethod
    def of_open_groups(cls, parts: list[Union]) -> Self:
        """The nodes of a super-block of a higher level: the open groups of those below, one after another."""
        bases = np.cumsum([0, *(part.open_count for part in parts)])
        crossing = np.concatenate([part.crossing for part in parts])
        node = np.concatenate([part.crossing_group + base for part, base in zip(parts, bases, strict=False)])
        # Each pair between two parts is known to both, from its own end: the other end's node stands there.
        known, where = np.unique(crossing[:, 0], return_index=True)
        place = np.searchsorted(known, crossing[:, 1])
        inside = known[np.minimum(place, len(known) - 1)] == crossing[:, 1] if len(known) else np.zeros(0, np.bool_)
        edges = np.stack([node[inside], node[where[place[inside]]]], axis=1)
        voxels, first = (np.concatenate([getattr(part, name) for part in parts]) for name in ("voxels", "first"))
        return cls(voxels, first, edges, crossing[~inside], node[~inside])


@dataclass(frozen=True)
class Union:
    """The groups of a super-block: open ones first, then the finished and kept in order of their first voxels.

    Attributes:
        group: of each node, 0..open_count-1 open, then finished; the number after the last for what was dropped.
        voxels, first: uint64, of the open groups.
        finished: uint64 first voxels of the finished groups that are kept, ascending.
        crossing: (m, 2) pairs that leave the super-block: fragment inside, fragment outside.
        crossing_group: the open group of each such inner fragment.
    """

    group: Index
    voxels: NDArray[np.uint64]
    first: NDArray[np.uint64]
    finished: NDArray[np.uint64]
    crossing: Index
    crossing_group: Index

    @property
    def open_count(self) -> int:
        """How many groups go on in the level above."""
        return len(self.voxels)

    def ids_of_nodes(self, of_open: NDArray[np.uint64], of_finished: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The final id of each node from those of the groups; 0 for dropped ones."""
        of_group = np.concatenate([of_open, of_finished, np.zeros(1, np.uint64)])
        ids: NDArray[np.uint64] = of_group[self.group]
        return ids


def union(nodes: Nodes, minimum_voxels: int) -> Union:
    """Join the nodes of one super-block.

    Args:
        nodes: what it is made of.
        minimum_voxels: finished groups of fewer voxels are dropped.
    """
    n, found = components(len(nodes.voxels), nodes.edges)
    index = found.astype(np.intp, copy=False)
    voxels = reduced(np.add, nodes.voxels, index, n, 0)
    first = reduced(np.minimum, nodes.first, index, n, LAST_UINT64)
    is_open = np.zeros(n, np.bool_)
    is_open[index[nodes.crossing_node]] = True
    opened = np.flatnonzero(is_open)
    kept = np.flatnonzero(~is_open & (voxels >= minimum_voxels))
    kept = kept[np.argsort(first[kept])]
    number = np.full(n, len(opened) + len(kept), np.int64)
    number[opened] = np.arange(len(opened))
    number[kept] = len(opened) + np.arange(len(kept))
    group: Index = number[index]
    return Union(group, voxels[opened], first[opened], first[kept], nodes.crossing, group[nodes.crossing_node])


def _located(spans: Index, fragments: NDArray[np.integer[Any]]) -> Index:
    """The place of global fragment numbers among those of ``spans``, one after another; -1 for others."""
    if not len(spans):
        return np.full(len(fragments), -1, np.int64)
    starts, lengths = spans[:, 0], spans[:, 1] - spans[:, 0]
    at = np.maximum(np.searchsorted(starts, fragments, side="right") - 1, 0)
    inside = (fragments >= starts[at]) & (fragments < spans[at, 1])
    places: Index = np.where(inside, (np.cumsum(lengths) - lengths)[at] + fragments - starts[at], -1)
    return places
