"""The instance table of a run: a folder of Parquet parts, written and read as a stream.

``part-00000.parquet``, ``part-00001.parquet``, ... hold the instances 1..N in order, each part a range of ids. Neither
writing nor reading holds more than about one part, so neither the number of instances nor that of fragments is limited
by memory. Ids follow the first voxels (z, y, x), so a filter on z or on the id skips the parts it cannot meet.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as parquet

from pipeline.arrays import Array
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, Vec3
from pipeline.instances.ops.fragments import FRAGMENT, merge_rows, reduced
from pipeline.instances.ops.relabel import numbered
from pipeline.instances.ops.shape import instance_columns
from pipeline.instances.ops.surface import DIRECTIONS
from pipeline.store.partitions import Partition, Partitions, even_bounds
from pipeline.store.tables import BlockTables, open_table

PART = 2**17  # instances a part
ROW_GROUP = 2**15  # rows whose smallest and largest values a filter looks at before it reads them
PAIRS = np.dtype((np.uint64, (len(DIRECTIONS),)))
_AT_ONCE = 2**22  # entries of a table read at a time


@dataclass(frozen=True, slots=True)
class Counted:
    """Tables of a stage's blocks and its counts, int64, one a block; a block with count 0 has none."""

    tables: BlockTables
    counts: npt.NDArray[np.int64]

    def __iter__(self) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """The blocks that have a table, with their arrays, each read when it is asked for."""
        return ((int(number), self.tables.opened(int(number))) for number in np.flatnonzero(self.counts))


@dataclass(frozen=True, slots=True)
class Parts:
    """What instances are summed up from, block by block.

    ``fragments`` have ``rows`` (``FRAGMENT``, one a label); the final id of label i of block b is
    ``table[offsets[b] + i - 1]``. ``pairs`` have ``ids`` and ``pairs`` (13 columns), inside blocks and across.
    """

    fragments: Counted
    offsets: Path
    table: Path
    pairs: Counted


@dataclass(frozen=True, slots=True)
class Space:
    """Shape in voxels, size of a voxel and place of the first one (nm), z, y, x."""

    extent: Vec3
    voxel_size_nm: FloatVec3
    offset_nm: FloatVec3


def write_instance_table(path: Path, parts: Parts, space: Space, part: int = PART) -> None:
    """Write the table of a finished segmentation; nothing where it is there. It is there whole or not at all.

    Rows are spilled to disk by ranges of ids, then reduced range by range; all sums are of integers, so the table is
    the same for any blocks. A killed process leaves a hidden folder beside ``path``, which the next one replaces.

    Args:
        path: the folder to make.
        parts: where the sums come from.
        space: where the voxels are.
        part: instances a part.
    """
    making = path.with_name(f".{path.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    if path.exists():
        return
    making.mkdir(parents=True)
    highest = highest_id(parts.table)
    bounds = even_bounds(1, highest + 1, part)
    with (
        Partitions(making / "rows", bounds, FRAGMENT) as rows,
        Partitions(making / "pairs", bounds, PAIRS) as pairs,
    ):
        _spill(parts, rows, pairs)
        (making / "parts").mkdir()
        each_rows, each_pairs = iter(rows), iter(pairs)
        for number in range(len(bounds) - 1):  # not by zip: it would hold one partition while the next is loaded
            table = _reduced(next(each_rows), next(each_pairs), highest, space)
            parquet.write_table(table, making / "parts" / _name(number), row_group_size=ROW_GROUP)
    (making / "parts").rename(path)
    shutil.rmtree(making)


def highest_id(table: Path) -> int:
    """The highest id in a table, read piece by piece; 0 for none."""
    ids = open_table(table)
    return max((int(ids[at : at + _AT_ONCE].max()) for at in range(0, len(ids), _AT_ONCE)), default=0)


def count_rows(path: Path) -> int:
    """The number of instances, from the parts' footers.

    Raises:
        BadInput: the table is not there or a part cannot be read.
    """
    return sum(_metadata(part).num_rows for part in part_files(path))


def table_totals(path: Path) -> tuple[int, int]:
    """The number of instances and of their voxels.

    Raises:
        BadInput: as ``count_rows``.
    """
    batches = instances(path, ["voxels"])
    return count_rows(path), sum(int(np.sum(batch["voxels"].to_numpy())) for batch in batches)


def instances(path: Path, columns: Sequence[str] | None = None, where: Any = None) -> Iterator[pa.RecordBatch]:
    """The table in pieces, ids ascending.

    Args:
        path: the folder of parts.
        columns: which; all by default.
        where: a ``pyarrow.compute`` expression, such as ``field("volume_um3") > 0.1``; parts and row groups whose
            statistics rule it out are not read.

    Raises:
        BadInput: as ``count_rows``.
    """
    import pyarrow.dataset as dataset

    files = [str(part) for part in part_files(path)]
    for part in part_files(path):
        _metadata(part)
    found = dataset.dataset(files, format="parquet")
    kept = None if columns is None else list(columns)
    yield from found.to_batches(
        columns=kept, filter=where, batch_size=ROW_GROUP, batch_readahead=2, fragment_readahead=1
    )


def table_problems(path: Path, highest: int) -> list[str]:
    """What is wrong with a stored table that should hold instances 1..``highest``; every part's footer is read."""
    try:
        ranges = [_ids(part) for part in part_files(path)]
    except BadInput as problem:
        return [str(problem)]
    listed = sum(stop - start for start, stop in ranges)
    if listed != highest:
        return [f"{path}: the parts list {listed} instances, the segmentation has {highest}"]
    starts = [start for start, _ in ranges]
    expected = [1, *(stop for _, stop in ranges[:-1])]
    return [] if starts == expected else [f"{path}: the parts do not hold the ids 1 to {highest} in order"]


def part_files(path: Path) -> list[Path]:
    """The parts of a table, in order.

    Raises:
        BadInput: there is no table.
    """
    files = sorted(path.glob("part-*.parquet"))
    if not files:
        raise BadInput(
            f"instance table {path}",
            "must be a folder of parts, part-00000.parquet and on",
            "there is none",
            "Run the same command again: it is made when it is not there.",
        )
    return files


def _name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _spill(parts: Parts, rows: Partitions, pairs: Partitions) -> None:
    offsets, table = open_table(parts.offsets), open_table(parts.table)
    for number, arrays in parts.fragments:
        ids = np.asarray(table[int(offsets[number]) : int(offsets[number + 1])])
        present, group = numbered(ids)
        kept = np.flatnonzero(group)
        # One row for each instance and block: a giant of millions of fragments must not fill one partition.
        rows.append(present, merge_rows(arrays["rows"][kept], group[kept] - 1, len(present)))
    for _, arrays in parts.pairs:
        pairs.append(arrays["ids"], arrays["pairs"])


def _reduced(rows: Partition, pairs: Partition, highest: int, space: Space) -> pa.Table:
    n = min(rows.high, highest + 1) - rows.low
    merged = merge_rows(rows.rows, rows.keys.astype(np.intp) - rows.low, n)
    index = pairs.keys.astype(np.intp) - rows.low
    summed = [reduced(np.add, pairs.rows[:, direction], index, n, 0) for direction in range(len(DIRECTIONS))]
    columns = instance_columns(
        merged, np.stack(summed, axis=1), space.extent, space.voxel_size_nm, space.offset_nm, first_id=rows.low
    )
    return pa.table(columns)


def _metadata(part: Path) -> Any:
    try:
        return parquet.read_metadata(part)
    except (OSError, pa.ArrowException) as error:
        raise BadInput(
            f"instance table {part}",
            "must be whole Parquet",
            " ".join(str(error).split()),
            f"Delete the folder {part.parent} and run the same command.",
        ) from None


def _ids(part: Path) -> tuple[int, int]:
    """The range of ids of a part, half-open, from its statistics."""
    metadata = _metadata(part)
    column = metadata.schema.to_arrow_schema().get_field_index("id")
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    found = [group for group in groups if group is not None and group.has_min_max]
    if not found:
        return 1, 1
    return min(group.min for group in found), max(group.max for group in found) + 1
