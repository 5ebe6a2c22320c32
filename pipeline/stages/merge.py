"""The global steps between the stages: offsets, the merge table, the size filter. Each writes one table, once.

A table's file name holds the fingerprint it was made for: a file that is there is right, and a run that is killed in
between finds it missing and makes it again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.formats import Array
from pipeline.ops.fragments import FRAGMENT
from pipeline.ops.merge import instance_rows, merge, regroup
from pipeline.tables import BlockTables, open_table, write_table

Counts = npt.NDArray[np.int64]


def write_offsets(path: Path, counts: Counts) -> None:
    """``offsets[b]`` = number of labels in the blocks before b; one entry more than there are blocks."""
    if not path.exists():
        write_table(path, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def write_merge(
    table: Path, rows: BlockTables, pairs: BlockTables, counts: Counts, pair_counts: Counts, minimum_voxels: int
) -> None:
    """The instance id of every fragment: connected components of the stitched pairs."""
    if not table.exists():
        fragments = gathered(rows, counts, "rows", np.zeros(0, FRAGMENT))
        touching = gathered(pairs, pair_counts, "pairs", np.zeros((0, 2), np.int64))
        write_table(table, merge(len(fragments), touching, fragments, minimum_voxels))


def write_regroup(table: Path, grown: BlockTables, counts: Counts, minimum_voxels: int) -> None:
    """The final id of every grown fragment: whole instances counted, small ones dropped, ids canonical again."""
    if not table.exists():
        ids = gathered(grown, counts, "ids", np.zeros(0, np.uint64))
        rows = gathered(grown, counts, "rows", np.zeros(0, FRAGMENT))
        write_table(table, regroup(ids, rows, minimum_voxels))


def final_rows(table: Path, rows: BlockTables, counts: Counts) -> Array:
    """One ``FRAGMENT`` row for each final instance, row i for id i + 1."""
    return instance_rows(gathered(rows, counts, "rows", np.zeros(0, FRAGMENT)), np.asarray(open_table(table)))


def gathered(tables: BlockTables, counts: Counts, name: str, empty: Array) -> Array:
    """The arrays of that name of all blocks with a count, one after another."""
    return np.concatenate([empty, *(tables.read(int(number))[name] for number in np.flatnonzero(counts))])
