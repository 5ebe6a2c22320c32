"""Rows of the instance table by a condition, streamed: filters reach the Parquet files, sorting keeps the best N only.

Conditions are those of ``pipeline.instances.conditions``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import BadInput
from pipeline.instances.conditions import column_of, condition

GATHERED = 2**16  # rows between two sorts
LOOKED_UP = 100  # rows up to which looking them up again is cheaper than reading every column of every row
AHEAD = {"batch_size": 2**15, "batch_readahead": 2, "fragment_readahead": 1}  # pyarrow's own hold 16 times as much


@dataclass(frozen=True)
class InstanceTable:
    """The stored instance table of a run: one Parquet file or a folder of parts."""

    path: Path
    stored: Any

    @classmethod
    def open(cls, path: Path) -> InstanceTable:
        """Open without reading a row.

        Raises:
            BadInput: there is no table, or it is torn.
        """
        if not path.exists():
            raise BadInput(
                str(path),
                "the run must have an instance table",
                "it has none yet",
                f"See how far it is: teramito status {path.parent}.",
            )
        try:
            stored = ds.dataset(path, format="parquet")
            if not stored.schema.names:
                raise pa.ArrowInvalid("it holds no columns")
            return cls(path, stored)
        except (pa.ArrowException, OSError) as error:
            raise _torn(path, error) from error

    @property
    def columns(self) -> list[str]:
        """Names, in the order stored."""
        return list(self.stored.schema.names)

    def count(self, where: str | None = None) -> int:
        """How many rows a condition keeps."""
        try:
            return int(self.stored.count_rows(filter=self._condition(where)))
        except (pa.ArrowException, OSError) as error:
            raise _torn(self.path, error) from error

    def rows(
        self,
        where: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows by batches.

        Args:
            where: the condition.
            sort: a column, rising; ``-COLUMN`` falling. Equal rows stay in the order of ids, nulls come last. Without
                a limit all rows that the condition keeps are held in memory.
            limit: at most this many rows.
            columns: which, in this order, each once; None for all.

        Raises:
            BadInput: an unknown or repeated column, none at all, a condition that cannot be read; a torn file, then
                when rows are taken.
        """
        chosen = self.columns if columns is None else self._chosen(columns)
        condition = self._condition(where)
        if sort is None:
            return self._rows(chosen, condition, None, limit)
        key = column_of(sort.removeprefix("-"), self.stored.schema, "--sort")[0]
        return self._rows(chosen, condition, (key, "descending" if sort.startswith("-") else "ascending"), limit)

    def _rows(
        self, chosen: list[str], condition: Any, by: tuple[str, str] | None, limit: int | None
    ) -> Iterator[pa.RecordBatch]:
        try:
            found = self._read(chosen, condition) if by is None else self._sorted(chosen, condition, by, limit)
            for batch in _cut(found, limit):
                yield batch.select(chosen)
        except (pa.ArrowException, OSError) as error:
            raise _torn(self.path, error) from error

    def _read(self, columns: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        return iter(self.stored.scanner(columns=list(columns), filter=condition, **AHEAD).to_batches())

    def _sorted(
        self, chosen: Sequence[str], condition: Any, by: tuple[str, str], limit: int | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows in order; where few are wanted, the sorted column and the ids first, then the rows of those ids."""
        keys = [by, *((name, "ascending") for name in self._order() if name != by[0])]
        names = [name for name, _ in keys]
        if limit is None or limit > LOOKED_UP or "id" not in names:
            return _first_of(self._read(list(dict.fromkeys([*chosen, *names])), condition), keys, limit)
        wanted = [
            row["id"] for batch in _first_of(self._read(names, condition), keys, limit) for row in batch.to_pylist()
        ]
        kind = self.stored.schema.field("id").type
        these = [ds.field("id") == pa.scalar(number, kind) for number in wanted]
        if not these:
            return iter(())
        # Equalities, not isin: from them the scanner tells by statistics which row groups to leave out.
        found = self._read(list(dict.fromkeys([*chosen, *names])), reduce(or_, these))
        return iter(_sorted(list(found), keys, limit))

    def _order(self) -> list[str]:
        return ["id"] if "id" in self.columns else []

    def _condition(self, where: str | None) -> Any:
        return None if where is None else condition(where, self.stored.schema)

    def _chosen(self, names: Sequence[str]) -> list[str]:
        given = f"--columns {','.join(names)!r}"
        if not names:
            raise BadInput(given, "it must name a column", nearest=f"Columns: {', '.join(self.columns)}.")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BadInput(given, "a column is shown once", f"{' and '.join(repeated)} stands there more than once")
        return [column_of(name, self.stored.schema, "--columns")[0] for name in names]


def _first_of(
    batches: Iterator[pa.RecordBatch], keys: list[tuple[str, str]], limit: int | None
) -> Iterator[pa.RecordBatch]:
    """The rows in order, at most ``limit``; never more than that and what was gathered since the last sort is held."""
    kept: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        kept.append(batch)
        rows += batch.num_rows
        if limit is not None and rows >= max(GATHERED, 4 * limit):
            kept = _sorted(kept, keys, limit)
            rows = sum(batch.num_rows for batch in kept)
    return iter(_sorted(kept, keys, limit))


def _sorted(batches: list[pa.RecordBatch], keys: list[tuple[str, str]], limit: int | None) -> list[pa.RecordBatch]:
    if not batches:
        return []
    table = pa.Table.from_batches(batches)
    order = pc.sort_indices(table, sort_keys=keys)
    return table.take(order[:limit]).to_batches()  # type: ignore[no-any-return]


def _cut(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if limit is not None:
            batch, limit = batch.slice(0, limit), limit - min(limit, batch.num_rows)
        if batch.num_rows:
            yield batch
        if limit == 0:
            return


def _torn(path: Path, error: Exception) -> BadInput:
    return BadInput(
        str(path),
        "the instance table must be readable",
        " ".join(str(error).split()).rstrip(". "),
        "Delete it and run the same command of the run again: it is made again from the tables of the blocks.",
    )
