"""Rows of the instance table by a condition: DuckDB over the Parquet parts, streamed and in bounded memory.

Conditions are those of ``pipeline.instances.conditions``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.errors import BadInput
from pipeline.instances.conditions import column_of, condition
from pipeline.instances.database import MEMORY, answer, locked_database, quoted

BATCH = 2**15  # rows handed over at a time
# A folder named sample=3 above the run is no column. The smallest and largest values in a file say nothing of NaN.
FROM = "FROM read_parquet(?, hive_partitioning = false, can_have_nan = true)"
SMALLER = "Ask for fewer columns, or fewer rows by --limit."


@dataclass(frozen=True)
class InstanceTable:
    """The stored instance table of a run: one Parquet file or a folder of parts."""

    path: Path
    files: tuple[str, ...]
    schema: pa.Schema

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
            stored = ds.dataset(path.absolute(), format="parquet")
            if not stored.schema.names:
                raise pa.ArrowInvalid("it holds no columns")
            return cls(path, tuple(sorted(stored.files)), stored.schema)
        except (pa.ArrowException, OSError) as error:
            raise _torn(path, error) from error

    @property
    def columns(self) -> list[str]:
        """Names, in the order stored."""
        return list(self.schema.names)

    def count(self, where: str | None = None) -> int:
        """How many rows a condition keeps.

        Raises:
            BadInput: a condition that cannot be read; a torn file.
        """
        (batch,) = self._batches(f"SELECT count(*) AS rows {FROM} {self._filter(where)}", where, None)
        return int(batch["rows"][0].as_py())

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
            sort: a column, rising; ``-COLUMN`` falling. Equal rows stay in the order of ids, NaN and nulls come last.
                What does not fit in memory is sorted in the system's temporary folder.
            limit: at most this many rows.
            columns: which, in this order, each once; None for all.

        Raises:
            BadInput: an unknown or repeated column, none at all, a condition that cannot be read; a torn file, then
                when rows are taken.
        """
        chosen = ", ".join(map(quoted, self.columns if columns is None else self._chosen(columns)))
        parts = [f"SELECT {chosen} {FROM}", self._filter(where), self._order(sort)]
        query = " ".join(parts) + ("" if limit is None else f" LIMIT {int(limit)}")
        return self._batches(query, where, None) if sort is None else self._sorted(query, where)

    def _sorted(self, query: str, where: str | None) -> Iterator[pa.RecordBatch]:
        with TemporaryDirectory(prefix="teramito-table-") as spill:
            yield from self._batches(query, where, Path(spill))

    def _batches(self, query: str, where: str | None, spill: Path | None) -> Iterator[pa.RecordBatch]:
        try:
            with locked_database(self.files, spill) as database:
                yield from answer(database, query, self.files, BATCH)
        except duckdb.OutOfMemoryException as error:
            raise BadInput(str(self.path), f"must be answered in {MEMORY} of memory", _line(error), SMALLER) from None
        except duckdb.DataError as error:
            if where is None:
                raise _torn(self.path, error) from error
            raise BadInput(f"--where {where!r}", "it must have a value for every row", _line(error)) from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _torn(self.path, error) from error

    def _filter(self, where: str | None) -> str:
        return "" if where is None else f"WHERE {condition(where, self.schema)}"

    def _order(self, sort: str | None) -> str:
        if sort is None:
            return ""
        name, kind = column_of(sort.removeprefix("-"), self.schema, "--sort")
        key, way = quoted(name), "DESC" if sort.startswith("-") else "ASC"
        nan = [f"isnan({key})"] if pa.types.is_floating(kind) else []
        ids = ["id"] if "id" in self.columns and name != "id" else []
        return f"ORDER BY {', '.join([f'{key} IS NULL', *nan, f'{key} {way}', *ids])}"

    def _chosen(self, names: Sequence[str]) -> list[str]:
        given = f"--columns {','.join(names)!r}"
        if not names:
            raise BadInput(given, "it must name a column", nearest=f"Columns: {', '.join(self.columns)}.")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BadInput(given, "a column is shown once", f"{' and '.join(repeated)} stands there more than once")
        return [column_of(name, self.schema, "--columns")[0] for name in names]


def _torn(path: Path, error: Exception) -> BadInput:
    return BadInput(
        str(path),
        "the instance table must be readable",
        _line(error),
        "Delete it and run the same command of the run again: it is made again from the tables of the blocks.",
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(". ")
