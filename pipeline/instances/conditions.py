"""Conditions on the rows of a table, as ``--where`` takes them.

A condition is read by Python's own parser and nothing of it is ever run: columns, numbers, ``true``, ``false``,
comparisons (also chained), ``and``, ``or``, ``not``, brackets. Whole numbers are compared exactly, of any size.
"""

from __future__ import annotations

import ast
from difflib import get_close_matches
from math import floor, inf
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import BadInput

EXAMPLE = 'For example "volume_um3 > 0.1 and touches_border == false".'
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
ROUNDED = {"less": "less_equal", "greater_equal": "greater"}  # against a fraction, once its whole part stands for it
TURNED = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}
Literal = bool | int | float


def condition(text: str, schema: pa.Schema) -> Any:
    """A condition on columns of a schema, as pyarrow takes it.

    Raises:
        BadInput: it cannot be read, or names a column that there is not.
    """
    return _Condition(text, schema).expression()


def column_of(name: str, schema: pa.Schema, place: str) -> tuple[str, pa.DataType]:
    """A column's name and type.

    Raises:
        BadInput: there is none; names ``place``, where it was asked for, and the nearest.
    """
    if name in schema.names:
        return name, schema.field(name).type
    near = get_close_matches(name, schema.names, 1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise BadInput(f"{place} {name}", "there is no such column", nearest=f"{hint}Columns: {', '.join(schema.names)}.")


class _Condition:
    """One ``--where``, read."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text, self.schema = text.strip(), schema

    def expression(self) -> Any:
        """As pyarrow takes it."""
        try:
            return self._truth(ast.parse(self.text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused("it must be a condition", str(getattr(error, "msg", error))) from None

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
            name, kind = column_of(node.id, self.schema, "--where")
            if pa.types.is_boolean(kind):
                return ds.field(name)
            raise self._refused(f"{name} is {kind}, not true or false", "a condition compares it with something")
        raise self._refused("it must compare columns with values", f"this is something else: {self._given(node)}")

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
            raise self._refused("comparisons are < <= > >= == !=", f"this is another one: {self._given(left)} ...")
        a, b = self._operand(left), self._operand(right)
        if isinstance(a, str) and isinstance(b, str):
            return getattr(pc, name)(*(self._number(column) for column in (a, b)))
        if isinstance(a, str) and not isinstance(b, str):
            return self._with_value(a, name, b)
        if isinstance(b, str) and not isinstance(a, str):
            return self._with_value(b, TURNED.get(name, name), a)
        raise self._refused("a comparison names a column", f"this names none: {self._given(left)} ...")

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
            return truths[node.id] if node.id in truths else column_of(node.id, self.schema, "--where")[0]
        raise self._refused("values are columns, numbers, true and false", f"this is none: {self._given(node)}")

    def _number(self, column: str) -> Any:
        """A column to compare with another: ids and sizes as float64, as the others are."""
        kind = column_of(column, self.schema, "--where")[1]
        return ds.field(column) if pa.types.is_boolean(kind) else ds.field(column).cast(pa.float64(), safe=False)

    def _with_value(self, column: str, comparison: str, value: Literal) -> Any:
        """A column against a value of its own type: an id above 2^53 is compared exactly."""
        kind = column_of(column, self.schema, "--where")[1]
        if pa.types.is_boolean(kind) != isinstance(value, bool):
            wanted, given = (
                ("true or false", "a number") if pa.types.is_boolean(kind) else ("a number", "true or false")
            )
            raise self._refused(f"{column} is compared with {wanted}", f"this is {given}")
        if pa.types.is_integer(kind):
            return _with_integers(column, kind, comparison, value)
        if pa.types.is_floating(kind):
            value = _as_float(value)
        elif not pa.types.is_boolean(kind):
            raise self._refused("a condition compares numbers, true and false", f"{column} is {kind}")
        return getattr(pc, comparison)(ds.field(column), pa.scalar(value, type=kind))

    def _given(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or ""  # not ast.unparse: it fails on the longest numbers

    def _refused(self, rule: str, why: str) -> BadInput:
        return BadInput(f"--where {self.text!r}", rule, why, f"{EXAMPLE} Columns: {', '.join(self.schema.names)}.")


def _with_integers(column: str, kind: pa.DataType, comparison: str, value: int | float) -> Any:
    """A column of integers against any number, exactly; one that no row can hold lies above or below all of them."""
    signed = pa.types.is_signed_integer(kind)
    low, high = -signed << (kind.bit_width - 1), (1 << (kind.bit_width - signed)) - 1
    field, lowest = ds.field(column), pa.scalar(low, type=kind)
    if value < low or value > high:
        holds = comparison == "not_equal" or comparison.startswith("greater" if value < low else "less")
        return field >= lowest if holds else field < lowest
    whole = floor(value)
    if whole != value:
        if comparison in ("equal", "not_equal"):
            return field >= lowest if comparison == "not_equal" else field < lowest
        comparison = ROUNDED.get(comparison, comparison)
    return getattr(pc, comparison)(field, pa.scalar(whole, type=kind))


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf
