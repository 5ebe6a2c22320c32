"""One expression of SQL as DuckDB's own parser reads it; nothing of it is run."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pipeline.instances.database import locked_database

DEPTH = 100  # of brackets in brackets: what is nested deeper is a mistake, and a tree is walked by recursion
NOWHERE = 2**64 - 1  # the place of a part that DuckDB added
_BEFORE, _AFTER = "SELECT (\n", "\n)"

Node = dict[str, Any]


@lru_cache(8)  # the rows and their number are asked for by one condition
def parsed(text: str) -> tuple[str, Node]:
    """A condition as DuckDB's parser reads it, and the text that was read.

    What the parser refuses is taken as Python would write it without chained comparisons, and tried again.

    Raises:
        ValueError: it is not one expression.
    """
    if not text:
        raise ValueError("it is empty")
    try:
        return text, _expression(text)
    except ValueError:
        unchained = _unchained(text)
        if unchained is None:
            raise
    return unchained, _expression(unchained)


def words(text: str, node: Node) -> str:
    """What a part of the tree of a text is in that text."""
    whole = (_BEFORE + text).encode()
    places = list(_places(node)) or [(len(_BEFORE), len(whole))]
    start, stop = min(start for start, _ in places), max(stop for _, stop in places)
    return whole[start:stop].decode(errors="replace")


def _expression(text: str) -> Node:
    text.encode()  # a word that is no Unicode is a ValueError too
    with locked_database(depth=DEPTH) as database:
        question = "SELECT json_serialize_sql(?::VARCHAR), json_serialize_sql('SELECT (1)')"
        answers = database.execute(question, [_BEFORE + text + _AFTER]).fetchall()[0]
    found, empty = (json.loads(answer) for answer in answers)
    if found["error"]:
        raise ValueError(found["error_message"])
    expressions = found["statements"][0]["node"].pop("select_list", [])
    del empty["statements"][0]["node"]["select_list"]
    if found != empty or len(expressions) != 1:  # the text closed the bracket it was put in
        raise ValueError("it is more than one expression, or has parameters")
    return expressions[0]  # type: ignore[no-any-return]


class _Unchained(ast.NodeTransformer):
    """``a < b < c`` as ``a < b and b < c``."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        sides = pairwise([node.left, *node.comparators])
        parts = [ast.Compare(left, [sign], [right]) for (left, right), sign in zip(sides, node.ops, strict=True)]
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), list[ast.expr](parts))


def _unchained(text: str) -> str | None:
    """A condition without chained comparisons; None where Python cannot read it."""
    try:
        return ast.unparse(_Unchained().visit(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _places(node: Any) -> Iterator[tuple[int, int]]:
    """Where the parts of a tree stand in the text, in bytes."""
    if isinstance(node, dict):
        start = node.get("query_location", NOWHERE)
        if start != NOWHERE:
            yield start, start + node["query_location_length"]
    for below in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _places(below)
