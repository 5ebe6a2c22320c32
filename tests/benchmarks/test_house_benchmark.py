"""The figures of a small made-up tree: each fault that the script counts is planted once."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.house import House, figures, main, read

CONTRACTS = """
[[tool.importlinter.contracts]]
type = "layers"
layers = ["flows", "workers", "pipeline"]

[[tool.importlinter.contracts]]
type = "layers"
layers = ["pipeline.run", "pipeline.left | pipeline.right", "pipeline.store", "pipeline.errors : pipeline.grid"]
"""


def tree(folder: Path, **modules: str) -> House:
    """A checkout of these modules, ``pipeline__run__job`` for ``pipeline/run/job.py``; folders are packages."""
    (folder / "pyproject.toml").write_text(CONTRACTS)
    for name in ("pipeline", "workers", "flows"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").touch()
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(dedent(text))
    return read(folder)


def test_rooms_loose_modules_and_the_longest_contract_are_read(tmp_path: Path) -> None:
    found = tree(tmp_path, pipeline__errors="", pipeline__grid="", pipeline__left__op="", flows__pages__run="")
    assert found.loose == ["pipeline.errors", "pipeline.grid"]
    assert found.rooms == ["flows", "flows.pages", "pipeline", "pipeline.left"]
    assert len(found.layers) == 4


@pytest.mark.parametrize(
    "text",
    [
        "from pipeline.store.volume import Volume",
        "from pipeline.store import volume",
        "import pipeline.store.volume",
        "from ..store import volume",
        "from ..store.volume import Volume",
        "def f() -> None:\n    from pipeline.store.volume import Volume",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.store.volume import Volume",
        "from importlib import import_module\nimport_module('pipeline.store.volume')",
    ],
)
def test_every_way_to_import_a_module_is_seen(tmp_path: Path, text: str) -> None:
    found = tree(tmp_path, pipeline__left__plan=text, pipeline__store__volume="")
    assert found.imports["pipeline.left.plan"] == {"pipeline.store.volume"}
    assert found.imports["pipeline.store.volume"] == set()


def test_relative_imports_of_a_package_start_at_itself(tmp_path: Path) -> None:
    tree(tmp_path, pipeline__left__plan="", pipeline__left__op="")
    (tmp_path / "pipeline/left/__init__.py").write_text("from .plan import A\nfrom . import op\n")
    assert read(tmp_path).imports["pipeline.left"] == {"pipeline.left.plan", "pipeline.left.op"}


def test_a_circle_inside_functions_is_found_and_a_chain_is_none(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        pipeline__left__a="from pipeline.left.b import x",
        pipeline__left__b="def f() -> None:\n    from pipeline.left.c import x",
        pipeline__left__c="def f() -> None:\n    from pipeline.left.a import x",
        pipeline__left__d="from pipeline.left.a import x",
    )
    assert found.circles == [("pipeline.left.a", "pipeline.left.b", "pipeline.left.c")]
    assert found.inner_project_imports == ["pipeline.left.b:2", "pipeline.left.c:2"]


def test_a_sibling_and_a_room_above_are_wrong_and_the_ground_floor_is_one(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        pipeline__left__plan="from pipeline.right.plan import x\nfrom pipeline.store.volume import x",
        pipeline__right__plan="",
        pipeline__store__volume="def f() -> None:\n    from pipeline.run.job import x",
        pipeline__run__job="from pipeline.left.plan import x",
        pipeline__errors="from pipeline.grid import x",
        pipeline__grid="",
    )
    assert found.wrong_ways == [
        ("pipeline.left.plan", "pipeline.right.plan"),
        ("pipeline.store.volume", "pipeline.run.job"),
    ]


@pytest.mark.parametrize(
    ("text", "is_typed"),
    [
        ("def f(a: int, *b: int, c: int = 1, **d: int) -> None: ...", True),
        ("class A:\n    def f(self, a: int) -> None: ...", True),
        ("def f(a) -> None: ...", False),
        ("def f(a: int): ...", False),
        ("def f(*a) -> None: ...", False),
        ("async def f(*, a) -> None: ...", False),
        ("def f() -> None:\n    def g(a): ...", False),
    ],
)
def test_a_function_without_an_annotation_is_found(tmp_path: Path, text: str, is_typed: bool) -> None:
    assert (tree(tmp_path, pipeline__grid=text).untyped == []) == is_typed


def test_the_length_of_a_function_leaves_its_docstring_out(tmp_path: Path) -> None:
    long = "def long(\n    a: int,\n) -> None:\n" + "    print(a)\n" * 40
    told = 'def told() -> None:\n    """One.\n\n    Two.\n    """\n    print()\n'
    found = figures(tree(tmp_path, pipeline__grid=long + told))
    assert found["functions over 40 lines"] == {"pipeline.grid:1 long": 43}
    assert found["function lines, longest"] == 43
    assert found["function lines, median"] == (43 + 2) / 2
    assert found["module lines, longest"] == 49


@pytest.mark.parametrize(
    ("handler", "count"),
    [
        ("except Exception:\n    x = 1", 1),
        ("except:\n    x = 1", 1),
        ("except (ValueError, BaseException) as error:\n    x = 1", 1),
        ("except Exception:\n    x = 1\n    raise", 0),
        ("except ValueError:\n    x = 1", 0),
    ],
)
def test_a_broad_except_swallows_anything(tmp_path: Path, handler: str, count: int) -> None:
    found = tree(tmp_path, pipeline__grid=f"try:\n    x = 0\n{handler}")
    assert figures(found)["broad excepts"] == count


def test_public_names_that_two_files_define_are_listed(tmp_path: Path) -> None:
    text = "import os\nfrom typing import Any\n{} = 1\n_own = 2\n__all__ = ['a']\ndef main() -> None: ...\n"
    tree(
        tmp_path,
        pipeline__left__a=text.format("SIZE") + "class Plan: ...",
        pipeline__left__b=text.format("SIZE: int") + "def Plan() -> None: ...",
    )
    (tmp_path / "pipeline/left/__main__.py").write_text("SIZE = 3\n")
    assert read(tmp_path).doubled == {name: ["pipeline.left.a", "pipeline.left.b"] for name in ("Plan", "SIZE")}


def test_two_checkouts_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    tree(before, pipeline__errors="def f(a): ...", pipeline__grid="")
    tree(after, pipeline__errors="def f(a: int) -> None: ...")
    (after / "flows/cli.py").write_text("def main() -> None:\n    print('help')\n")
    (before / "flows/cli.py").write_text("def main() -> None:\n    print('help')\n")
    rows = main(after, before, runs=1, path=tmp_path / "house.json")
    by_name = {row["figure"]: (row["before"], row["after"]) for row in rows}
    assert by_name["loose modules in pipeline"] == (2, 1)
    assert by_name["functions typed, %"] == (50.0, 100.0)
    assert by_name["untyped functions"] == (["pipeline.errors:1 f"], [])
    assert all(seconds > 0 for seconds in by_name["teramito --help, s"])
    assert json.loads((tmp_path / "house.json").read_text())["rows"] == rows
    assert "loose modules in pipeline" in capsys.readouterr().out
