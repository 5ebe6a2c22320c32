"""Conditions on the rows of a table, as ``--where`` takes them: SQL expressions that can filter and do nothing else.

DuckDB's own parser reads the text and runs nothing of it. The tree it gives may hold columns, numbers, ``true`` and
``false``, comparisons, BETWEEN, IN, IS NULL, AND, OR, NOT, arithmetic and ``FUNCTIONS``; the SQL that is run is written
anew from such a tree, so no word of the text itself gets into it. Three things differ from DuckDB: ``1 < x < 5`` is a
condition, a whole number is compared exactly with a number of any size, and NaN is neither above nor below a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from math import ceil, floor
from typing import Literal

import pyarrow as pa

from pipeline.errors import BadInput
from pipeline.instances.database import quoted
from pipeline.instances.expression import Node, parsed, words

EXAMPLE = 'For example "volume_um3 > 0.1 and touches_border == false".'
COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
ARITHMETIC = ("+", "-", "*", "/", "%")
FUNCTIONS = {
    **dict.fromkeys(("abs", "sqrt", "cbrt", "exp", "ln", "log2", "log10", "floor", "ceil", "round"), 1),
    **dict.fromkeys(("pow", "power"), 2),
}
INFINITY = "CAST('inf' AS DOUBLE)"
HIGHEST = 2**127 - 1  # of DuckDB's largest integers, which hold every column

ValueKind = Literal["truth", "whole", "real"]


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a condition: its SQL, what it holds, and its value where it is a number as such."""

    sql: str
    kind: ValueKind
    value: Decimal | None = None
    constant: bool = False


def condition(text: str, schema: pa.Schema) -> str:
    """A condition on columns of a schema, as DuckDB takes it.

    Raises:
        BadInput: it cannot be read, is no condition, or names a column that there is not.
    """
    return _Condition(text, schema).sql()


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
        self.read = self.text

    def sql(self) -> str:
        """As DuckDB takes it."""
        try:
            self.read, tree = parsed(self.text)
        except ValueError as error:
            raise self._refused("it must be a condition", " ".join(str(error).split())) from None
        return self._truth(tree)

    def _refused(self, rule: str, why: str) -> BadInput:
        return BadInput(f"--where {self.text!r}", rule, why, f"{EXAMPLE} Columns: {', '.join(self.schema.names)}.")

    def _truth(self, node: Node) -> str:
        """A part that is true or false for each row."""
        part = self._part(node)
        if part.kind == "truth" and not part.constant:
            return part.sql
        if node["class"] == "COLUMN_REF":
            name, kind = self._column(node)
            raise self._refused(f"{name} is {kind}, not true or false", "a condition compares it with something")
        raise self._refused("it must compare columns with values", f"this is something else: {self._given(node)}")

    def _part(self, node: Node) -> _Part:
        kinds = {
            "COLUMN_REF": self._column_part,
            "CONSTANT": self._constant,
            "CONJUNCTION": self._conjunction,
            "COMPARISON": self._comparison,
            "BETWEEN": self._between,
            "OPERATOR": self._operator,
            "FUNCTION": self._function,
        }
        return kinds.get(node["class"], self._unknown)(node)

    def _unknown(self, node: Node) -> _Part:
        raise self._refused("values are columns, numbers, true and false", f"this is none: {self._given(node)}")

    def _column(self, node: Node) -> tuple[str, pa.DataType]:
        return column_of(".".join(node["column_names"]), self.schema, "--where")

    def _column_part(self, node: Node) -> _Part:
        name, kind = self._column(node)
        if pa.types.is_boolean(kind):
            return _Part(quoted(name), "truth")
        if pa.types.is_integer(kind):
            return _Part(quoted(name), "whole")
        if pa.types.is_floating(kind):
            return _Part(quoted(name), "real")
        raise self._refused("a condition compares numbers, true and false", f"{name} is {kind}")

    def _constant(self, node: Node) -> _Part:
        literal = node["literal"]
        if literal["kind"] == "BOOLEAN":
            return _Part(literal["text"], "truth", constant=True)
        if literal["kind"] not in ("INTEGER", "NUMERIC"):
            return self._unknown(node)
        try:
            return _number(Decimal(literal["text"].replace("_", "")))
        except ArithmeticError:  # an exponent of twenty digits
            return self._unknown(node)

    def _conjunction(self, node: Node) -> _Part:
        word = " AND " if node["type"] == "CONJUNCTION_AND" else " OR "
        return _Part("(" + word.join(self._truth(child) for child in node["children"]) + ")", "truth")

    def _comparison(self, node: Node) -> _Part:
        sign = COMPARISONS.get(node["type"])
        if sign is None:
            raise self._refused("comparisons are < <= > >= == !=", f"this is another one: {self._given(node)}")
        return self._compared(node["left"], sign, node["right"])

    def _between(self, node: Node) -> _Part:
        low = self._compared(node["input"], ">=", node["lower"])
        high = self._compared(node["input"], "<=", node["upper"])
        return _Part(f"({low.sql} AND {high.sql})", "truth")

    def _operator(self, node: Node) -> _Part:
        first, *others = node["children"]
        if node["type"] == "OPERATOR_NOT":
            return _Part(f"(NOT {self._truth(first)})", "truth")
        if node["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            word = node["type"].removeprefix("OPERATOR_").replace("_", " ")
            return _Part(f"({self._part(first).sql} {word})", "truth")
        if node["type"] == "COMPARE_IN":
            return _Part("(" + " OR ".join(self._compared(first, "=", each).sql for each in others) + ")", "truth")
        return self._unknown(node)

    def _function(self, node: Node) -> _Part:
        name, nodes = node["function_name"].lower(), [argument["expression"] for argument in node["arguments"]]
        unusual = [node.get("schema"), node.get("filter"), node["distinct"], node["order_bys"].get("orders")]
        if any(unusual) or name not in (*ARITHMETIC, *FUNCTIONS, "isnan"):
            if node["is_operator"]:
                raise self._refused("it must be a condition", f"this is an operator of something else: {name}")
            return self._unknown(node)
        parts = [self._part(each) for each in nodes]
        if len(parts) not in _arguments(name) or any(part.kind == "truth" for part in parts):
            return self._unknown(node)
        return _computed(name, parts)

    def _compared(self, left: Node, sign: str, right: Node) -> _Part:
        a, b = self._part(left), self._part(right)
        if a.constant and b.constant:
            raise self._refused("a comparison names a column", f"this names none: {self._given(left)} ...")
        if a.constant:
            left, a, sign, b = right, b, TURNED.get(sign, sign), a
        if (a.kind == "truth") != (b.kind == "truth"):
            wanted, given = ("true or false", "a number") if a.kind == "truth" else ("a number", "true or false")
            raise self._refused(f"{self._given(left)} is compared with {wanted}", f"this is {given}")
        if a.kind == "whole" and b.value is not None:
            return _Part(_with_integer(a.sql, sign, b.value), "truth")
        return _Part(_with_nan(a, sign, b), "truth")

    def _given(self, node: Node) -> str:
        return words(self.read, node)


def _number(value: Decimal) -> _Part:
    if abs(value) <= HIGHEST and floor(value) == value:
        return _Part(str(floor(value)), "whole", value, constant=True)
    return _Part(_as_real(value), "real", value, constant=True)


def _as_real(value: Decimal) -> str:
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _with_integer(sql: str, sign: str, value: Decimal) -> str:
    """A whole number against any other, exactly."""
    value = min(max(value, Decimal(-HIGHEST)), Decimal(HIGHEST))
    if floor(value) == value or sign in ("<=", ">"):
        return f"({sql} {sign} {floor(value)})"
    if sign in ("<", ">="):
        return f"({sql} {sign} {ceil(value)})"
    return f"({sql} {'<>' if sign == '=' else '='} {sql})"  # none or all of them; null of null


def _with_nan(a: _Part, sign: str, b: _Part) -> str:
    """A comparison that NaN fails, other than ``!=``; DuckDB's own has it equal to itself and above infinity."""
    compared = f"{a.sql} {sign} {b.sql if b.value is None else _as_real(b.value)}"
    reals = [part.sql for part in (a, b) if part.kind == "real" and not part.constant]
    if sign == "<>":
        return f"({' OR '.join([compared, *(f'isnan({sql})' for sql in reals)])})"
    # Not by isnan: bounded above like this, parts without such values are left out.
    return f"({' AND '.join([compared, *(f'{sql} <= {INFINITY}' for sql in reals)])})"


def _arguments(name: str) -> tuple[int, ...]:
    """How many an operator or a function may have."""
    if name in ARITHMETIC:
        return (1, 2) if name in ("+", "-") else (2,)
    return (FUNCTIONS.get(name, 1),)


def _computed(name: str, parts: Sequence[_Part]) -> _Part:
    """Arithmetic and functions: of whole numbers exactly where it can be, otherwise in float64."""
    if len(parts) == 1 and parts[0].value is not None and name in ("+", "-"):
        return _number(parts[0].value * (-1 if name == "-" else 1))
    exact = all(part.kind == "whole" for part in parts) and name in ("+", "-", "*", "%", "abs")
    given = [f"CAST({part.sql} AS {'HUGEINT' if exact else 'DOUBLE'})" for part in parts]
    if name == "isnan":
        return _Part(f"isnan({given[0]})", "truth")
    kind: ValueKind = "whole" if exact else "real"
    if name not in ARITHMETIC:
        return _Part(f"{name}({', '.join(given)})", kind)
    return _Part(f"({name}{given[0]})" if len(given) == 1 else f"({f' {name} '.join(given)})", kind)
