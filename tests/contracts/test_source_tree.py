"""Rules of the source tree that no linter holds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("pipeline", "workers", "flows") for path in (ROOT / folder).rglob("*.py"))
LONGEST = 330
VAGUE = {"utils", "helpers", "manager", "misc", "common"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_is_short_and_has_a_docstring(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert ast.get_docstring(ast.parse(text)), "every module says what it is for"


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [_name(path) for path in MODULES if path.stem in VAGUE] == []


def test_broad_excepts_stand_at_the_border_to_a_worker_and_to_a_users_network_only() -> None:
    broad = [_name(path) for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if _is_broad(node)]
    assert broad == ["pipeline/engine/stage.py", "pipeline/model/registry.py"]


def _is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    # A handler that puts things right and raises again swallows nothing.
    raises_again = bool(node.body) and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
    caught = node.type.id if isinstance(node.type, ast.Name) else "" if node.type else "everything"
    return caught in ("Exception", "BaseException", "everything") and not raises_again
