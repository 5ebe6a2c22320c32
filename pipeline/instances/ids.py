"""The global steps between the stages: offsets, the merge table, the final ids. Each writes one table, once.

A table's file name holds the fingerprint it was made for: a file that is there is right, and a run that is killed in
between finds it missing and makes it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Array, Counts, Ids
from pipeline.geometry import Vec3
from pipeline.instances.canonical import counted, write_canonical
from pipeline.instances.ops.fragments import FRAGMENT, Rows, merge_rows
from pipeline.instances.ops.merge import components, merge
from pipeline.instances.ops.relabel import numbered
from pipeline.instances.ops.supermerge import Union
from pipeline.instances.stages.supermerge import SuperMergeStage
from pipeline.instances.stored.provisional import Provisional
from pipeline.store.partitions import Partitions, even_bounds
from pipeline.store.tables import BlockTables, TableWriter, open_table, write_table

_PARTITION = 2**18  # instances summed at once


def write_offsets(path: Path, counts: Counts) -> None:
    """``offsets[b]`` = number of labels in the blocks before b; one entry more than there are blocks."""
    if not path.exists():
        write_table(path, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def write_merge(
    table: Path, rows: BlockTables, pairs: BlockTables, counts: Counts, pair_counts: Counts, minimum_voxels: int
) -> None:
    """The instance id of every fragment, all of them in memory: connected components of the stitched pairs."""
    if table.exists():
        return
    fragments = np.zeros(int(counts.sum()), np.dtype([("voxels", np.uint64), ("first", np.uint64)]))
    _fill(fragments, rows, counts, "rows")
    touching = np.zeros((int(pair_counts.sum()), 2), np.int32 if len(fragments) < 2**31 else np.int64)
    _fill(touching, pairs, pair_counts, "pairs")
    write_table(table, merge(len(fragments), touching, fragments, minimum_voxels))


def _fill(target: Array, tables: BlockTables, counts: Counts, name: str) -> None:
    """One array of all blocks, in the fields or the dtype of the target, without a second copy of all of it."""
    at = 0
    for number in np.flatnonzero(counts):
        part = tables.opened(int(number))[name]
        for field in target.dtype.names or ():
            target[field][at : at + len(part)] = part[field]
        if target.dtype.names is None:
            target[at : at + len(part)] = part
        at += len(part)


def write_supermerge(table: Path, levels: Sequence[SuperMergeStage], count: int, voxels: int) -> None:
    """The instance id of every fragment from finished super-blocks: number all finished groups, then hand ids down.

    Memory is that of one super-block or of one range of first voxels.

    Args:
        table: as ``write_merge`` writes it, id for id.
        levels: finest first; every super-block of each is stored.
        count: fragments of the volume.
        voxels: of the volume.
    """
    scratch = table.with_name(f"{table.stem}.levels")
    shutil.rmtree(scratch, ignore_errors=True)  # also where a kill has left it beside the finished table
    if table.exists():
        return
    finished = scratch / "finished.npy"
    lengths = [len(union.finished) for union in _unions(levels)]
    write_canonical(finished, counted(union.finished for union in _unions(levels)), sum(lengths), voxels)
    spans = pairwise(np.cumsum([0, *lengths]).tolist())
    ids = open_table(finished)
    handed = [BlockTables(scratch / f"{level.level}") for level in levels]
    offsets = open_table(levels[0].offsets)
    with TableWriter(table, count) as writer:
        for level in reversed(levels):
            for block in level.grid:
                union = level.unions.read(block.number)
                start, stop = next(spans)
                from_above = (
                    handed[level.level].opened(block.number)["ids"] if union.open_count else np.zeros(0, np.uint64)
                )
                of_nodes = union.ids_of_nodes(from_above, np.asarray(ids[start:stop]))
                members = [member.number for member in level.members(block.core)]
                if level.below is None:
                    _put(writer, of_nodes, members, offsets)
                else:
                    _hand_down(handed[level.level - 1], of_nodes, members, level.below)
    shutil.rmtree(scratch)


def _unions(levels: Sequence[SuperMergeStage]) -> Iterator[Union]:
    """The union of every super-block, coarsest level first: the order in which ids are handed down."""
    return (level.unions.read(block.number) for level in reversed(levels) for block in level.grid)


def _put(writer: TableWriter, ids: Ids, blocks: list[int], offsets: Array) -> None:
    at = 0
    for number in blocks:
        start, stop = int(offsets[number]), int(offsets[number + 1])
        if stop > start:
            writer.put(start, ids[at : at + stop - start])
        at += stop - start


def _hand_down(handed: BlockTables, ids: Ids, members: list[int], below: SuperMergeStage) -> None:
    at = 0
    for number in members:
        count = below.unions.read(number).open_count
        if count:
            handed.write(number, {"ids": ids[at : at + count]})
        at += count


@dataclass(frozen=True)
class Fragments:
    """The rows of every block with the provisional instance of each: what final ids are made from.

    Attributes:
        found: labels, rows and ids as they are stored.
        counts: labels of each block.
        merged: the merge's table, whose largest value bounds the ids.
    """

    found: Provisional
    counts: Counts
    merged: Path

    def parts(self) -> Iterator[tuple[Ids, Rows]]:
        """Provisional ids (0: dropped) and rows of each block that holds any, in the order of blocks."""
        tables = self.found.labels.tables
        rows = (tables.opened(int(number))["rows"] for number in np.flatnonzero(self.counts))
        return zip(self.ids(), rows, strict=True)

    def ids(self) -> Iterator[Ids]:
        """The provisional ids of each block that holds any fragment, in the order of blocks."""
        return map(self.found.look_up(), map(int, np.flatnonzero(self.counts)))

    def highest(self) -> int:
        """The highest provisional id."""
        table = open_table(self.merged)
        return max((int(table[at : at + 2**20].max()) for at in range(0, len(table), 2**20)), default=0)


def write_final(
    table: Path,
    fragments: Fragments,
    kept: Callable[[Rows], npt.NDArray[np.bool_]],
    joined: Counts | None,
    extent: Vec3,
) -> None:
    """The final id of every fragment: whole instances summed, those not wanted dropped, numbered canonically.

    Args:
        table: uint64 of the number of fragments; 0 for dropped ones.
        fragments: of all blocks.
        kept: which whole instances stay, from their rows.
        joined: (k, 2) provisional ids that are one instance, or None.
        extent: of the volume.
    """
    scratch = table.with_name(f"{table.stem}.sums")
    shutil.rmtree(scratch, ignore_errors=True)  # also where a kill has left it beside the finished table
    if table.exists():
        return
    whole = scratch / "whole.npy"
    joins = Joins.of(joined)
    highest = fragments.highest()
    found = _whole_instances(scratch / "rows", fragments, joins, highest)
    chosen = ((owners[keep], rows["first"][keep]) for owners, rows in found for keep in [kept(rows)])
    write_canonical(whole, chosen, highest + 1, int(np.prod(extent, dtype=object)))
    final_of = open_table(whole)
    with TableWriter(table, int(fragments.counts.sum())) as writer:
        for ids in fragments.ids():
            writer.append(np.asarray(final_of[joins.root(ids).astype(np.intp)]))
    shutil.rmtree(scratch)


def _whole_instances(folder: Path, fragments: Fragments, joins: Joins, highest: int) -> Iterator[tuple[Ids, Rows]]:
    """The rows of whole provisional instances with their ids, one range of ids at a time."""
    with Partitions(folder, even_bounds(1, highest + 1, _PARTITION), FRAGMENT) as spilled:
        for ids, rows in fragments.parts():
            present, group = numbered(joins.root(ids))
            own = np.flatnonzero(group)
            # One row for each instance and block: a giant of millions of fragments must not fill one range.
            spilled.append(present, merge_rows(rows[own], group[own] - 1, len(present)))
        for part in spilled:
            owners, group = np.unique(part.keys, return_inverse=True)
            yield owners, merge_rows(part.rows, group, len(owners))


@dataclass(frozen=True)
class Joins:
    """Provisional ids that are parts of one instance: each such id and the smallest of its instance, ascending."""

    ids: Ids
    roots: Ids

    @classmethod
    def of(cls, pairs: Counts | None) -> Joins:
        """From (k, 2) pairs of ids."""
        if pairs is None or not len(pairs):
            return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
        ids, ends = np.unique(pairs, return_inverse=True)
        n, group = components(len(ids), ends.reshape(-1, 2))
        smallest = np.full(n, len(ids))
        np.minimum.at(smallest, group, np.arange(len(ids)))
        return cls(ids.astype(np.uint64), ids[smallest[group]].astype(np.uint64))

    def root(self, ids: Ids) -> Ids:
        """The id that stands for each one's instance."""
        if not len(self.ids):
            return ids
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.roots[at], ids)
