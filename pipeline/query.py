"""Rows of the instance table by a condition, streamed: filters reach the Parquet files, sorting keeps the best N only.

A condition is read by Python's own parser and nothing of it is ever run: columns, numbers, ``true``, ``false``,
comparisons (also chained), ``and``, ``or``, ``not``, brackets.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import BadInput

EXAMPLE = 'For example "volume_um3 > 0.1 and touches_border == false".'
GATHERED = 2**16  # rows between two sorts
LOOKED_UP = 100  # rows up to which looking them up again is cheaper than reading every column of every row
AHEAD = {"batch_size": 2**15, "batch_readahead": 2, "fragment_readahead": 1}  # pyarrow's own hold 16 times as much
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
TURNED = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}
Literal = bool | int | float


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
            return cls(path, ds.dataset(path, format="parquet"))
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
            columns: which, in this order; None for all.

        Raises:
            BadInput: an unknown column, a condition that cannot be read, a torn file.
        """
        chosen = self.columns if columns is None else [self._column(name, "--columns") for name in columns]
        condition = self._condition(where)
        try:
            if sort is not None:
                key = self._column(sort.removeprefix("-"), "--sort")
                batches = self._sorted(
                    chosen, condition, (key, "descending" if sort.startswith("-") else "ascending"), limit
                )
            else:
                batches = self._read(chosen, condition)
            for batch in _cut(batches, limit):
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
        return None if where is None else _Condition(where, self).expression()

    def _column(self, name: str, place: str) -> str:
        if name in self.columns:
            return name
        near = get_close_matches(name, self.columns, 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise BadInput(
            f"{place} {name}", "there is no such column", nearest=f"{hint}Columns: {', '.join(self.columns)}."
        )

    def column(self, name: str, place: str) -> tuple[str, pa.DataType]:
        """A column's name and type.

        Raises:
            BadInput: there is none; names the nearest.
        """
        return self._column(name, place), self.stored.schema.field(name).type


class _Condition:
    """One ``--where``, read."""

    def __init__(self, text: str, table: InstanceTable) -> None:
        self.text, self.table = text, table

    def expression(self) -> Any:
        """As pyarrow takes it."""
        try:
            tree = ast.parse(self.text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused("it must be a condition", str(getattr(error, "msg", error))) from None
        return self._truth(tree.body)

    def _truth(self, node: ast.expr) -> Any:
        """A part that is true or false for each row."""
        if isinstance(node, ast.BoolOp):
            first, *others = (self._truth(value) for value in node.values)
            for other in others:
                first = first & other if isinstance(node.op, ast.And) else first | other
            return first
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._truth(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            name, kind = self.table.column(node.id, "--where")
            if pa.types.is_boolean(kind):
                return ds.field(name)
            raise self._refused(f"{name} is {kind}, not true or false", "a condition compares it with something")
        raise self._refused("it must compare columns with values", f"this is something else: {ast.unparse(node)}")

    def _comparison(self, node: ast.Compare) -> Any:
        sides = [node.left, *node.comparators]
        parts = [
            self._compared(left, operator, right)
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False)
        ]
        first, *others = parts
        for other in others:
            first = first & other
        return first

    def _compared(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Any:
        name = COMPARISONS.get(type(operator))
        if name is None:
            raise self._refused("comparisons are < <= > >= == !=", f"this is another one: {ast.unparse(left)} ...")
        a, b = self._operand(left), self._operand(right)
        if isinstance(a, str) and isinstance(b, str):
            return getattr(pc, name)(*(self._number(column) for column in (a, b)))
        if isinstance(a, str) and not isinstance(b, str):
            return self._with_value(a, name, b)
        if isinstance(b, str) and not isinstance(a, str):
            return self._with_value(b, TURNED.get(name, name), a)
        raise self._refused("a comparison names a column", f"this names none: {ast.unparse(left)} ...")

    def _operand(self, node: ast.expr) -> str | Literal:
        """The name of a column, or a value."""
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node, sign = node.operand, -1
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return sign * node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, bool) and sign == 1:
            return node.value
        if isinstance(node, ast.Name) and sign == 1:
            truths = {"true": True, "false": False}
            return truths[node.id] if node.id in truths else self.table.column(node.id, "--where")[0]
        raise self._refused("values are columns, numbers, true and false", f"this is none: {ast.unparse(node)}")

    def _number(self, column: str) -> Any:
        """A column to compare with another: ids and sizes as float64, as the others are."""
        kind = self.table.column(column, "--where")[1]
        return ds.field(column) if pa.types.is_boolean(kind) else ds.field(column).cast(pa.float64(), safe=False)

    def _with_value(self, column: str, comparison: str, value: Literal) -> Any:
        """A column against a value of its own type: an id above 2^53 is compared exactly."""
        kind = self.table.column(column, "--where")[1]
        field = ds.field(column)
        if pa.types.is_boolean(kind) != isinstance(value, bool):
            wanted = "true or false" if pa.types.is_boolean(kind) else "a number"
            raise self._refused(f"{column} is compared with {wanted}", f"{value} is none")
        if pa.types.is_integer(kind):
            if float(value).is_integer():
                field, value = field, int(value)
            else:
                field, kind = field.cast(pa.float64(), safe=False), pa.float64()
        try:
            scalar = pa.scalar(value, type=kind)
        except (pa.ArrowException, OverflowError):
            raise self._refused(f"{column} is {kind}", f"it never holds {value}") from None
        return getattr(pc, comparison)(field, scalar)

    def _refused(self, rule: str, why: str) -> BadInput:
        return BadInput(f"--where {self.text!r}", rule, why, f"{EXAMPLE} Columns: {', '.join(self.table.columns)}.")


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
