"""The house: seven floors, rooms that do not know their siblings, pure ops, and limits on every module and function.

``python -m benchmarks.house`` prints the figures that are held here.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from benchmarks import house
from benchmarks.house import FAN_OUT, FUNCTION_LINES, MODULE_LINES, ROOT, House, figures, read

FLOORS = """
training
run | evaluation
predict | denoise | instances
image | export
engine | phantom
store | model | pictures
arrays : errors : geometry : grid : settings
"""
ROOMS = 30
LOOSE = 5
VAGUE = {"utils", "helpers", "manager", "misc", "common"}

# The compiler gives the types of a kernel's parameters, pointers and numbers, at each call.
UNTYPED = {"local_convolution_triton:_weighted_sum", "local_convolution_triton:_products"}

# Names that modules share because they mean the same thing there.
ONE_CONCEPT = {
    "TERMINAL": "what draws a flow's progress, where the flow was started from a terminal",
    "Config": "the configuration of either training, as a type variable",
    "Decoder": "of one network each",
    "Encoder": "of one network each",
    "describe": "each format's own",
    "open_handle": "each format's own",
    "log": "the logger of a module",
}
# The two trainings are mirror images of each other, and the task chooses between them.
MIRRORS = re.compile(r"pipeline\.training\.(restoration\.\w+|segmentation\.\w+|task)")

PURE_FILES = (
    "pipeline/*/ops/*.py",
    "pipeline/predict/op.py",
    "pipeline/predict/tta.py",
    "pipeline/export/downsample.py",
    *(f"pipeline/image/{name}.py" for name in ("lattice", "resample", "quantise", "padding")),
    # what these import, held to the same rule
    *(f"pipeline/{name}.py" for name in ("arrays", "errors", "geometry", "grid")),
    "pipeline/instances/plan.py",
)
PURE_LIBRARIES = {"numpy", "scipy", "cc3d", "fastremap", "torch"} | {
    *("__future__", "collections", "dataclasses", "enum", "fractions", "functools", "heapq", "itertools", "math"),
    *("operator", "typing"),
}
INPUT_OUTPUT = {
    *("open", "print", "input", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink"),
    *("load", "loadtxt", "fromfile", "memmap", "save", "savez", "savetxt", "tofile"),
}


@pytest.fixture(scope="module")
def tree() -> House:
    return read(ROOT)


def planted(tree: House, name: str, code: str) -> House:
    """The tree with some code at the end of a module."""
    module = tree.modules[name]
    changed = replace(module, tree=ast.parse(f"{module.path.read_text()}\n\n{code}\n"))
    return House({**tree.modules, name: changed}, tree.layers)


def file_of(tree: House, name: str) -> str:
    return str(tree.modules[name].path.relative_to(ROOT))


def test_the_contract_of_imports_has_these_seven_floors(tree: House) -> None:
    written = [line.replace("pipeline.", "") for line in tree.layers]
    assert written == FLOORS.strip().splitlines()


def test_every_module_of_the_library_stands_on_a_floor(tree: House) -> None:
    rooms = {f"pipeline.{room}" for room in re.findall(r"\w+", FLOORS)}
    library = [name for name in tree.modules if name.startswith("pipeline.")]
    assert [name for name in library if ".".join(name.split(".")[:2]) not in rooms] == []


def test_no_room_imports_from_above_or_from_a_sibling(tree: House) -> None:
    assert tree.wrong_ways == []


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("pipeline.predict.plan", "pipeline.denoise.plan"),
        ("pipeline.instances.ops.label", "pipeline.predict.tta"),
        ("pipeline.store.tables", "pipeline.model.spec"),
        ("pipeline.image.mask", "pipeline.instances.settings"),
        ("pipeline.geometry", "pipeline.store.volume"),
    ],
)
def test_an_import_of_a_sibling_or_from_above_is_found_inside_a_function_too(
    tree: House, name: str, imported: str
) -> None:
    code = f"def planted() -> None:\n    from {imported} import Planted"
    assert planted(tree, name, code).wrong_ways == [(name, imported)]


def test_the_import_rules_of_the_project_refuse_a_sibling_in_a_copy_of_the_tree(tmp_path: Path) -> None:
    for folder in house.FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.safetensors", "*.png"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "pipeline/predict/plan.py").open("a") as file:
        file.write("\n\ndef planted() -> None:\n    import pipeline.denoise.plan\n")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pipeline.predict is not allowed to import pipeline.denoise" in done.stdout


def test_no_module_reaches_itself_by_its_imports(tree: House) -> None:
    assert tree.circles == []


def test_a_circle_through_a_function_is_found(tree: House) -> None:
    code = "def planted() -> None:\n    from pipeline.instances.ops.bridge import planted"
    (circle,) = planted(tree, "pipeline.instances.ops.fragments", code).circles
    assert {"pipeline.instances.ops.bridge", "pipeline.instances.ops.fragments"} <= set(circle)


def test_few_modules_stand_loose_and_the_rooms_are_few(tree: House) -> None:
    assert len(tree.loose) <= LOOSE
    assert len(tree.rooms) <= ROOMS


def test_no_module_draws_on_more_than_fifteen_others(tree: House) -> None:
    assert figures(tree)[f"fan-out over {FAN_OUT}"] == {}


def test_functions_and_modules_are_short(tree: House) -> None:
    found = figures(tree)
    assert found[f"functions over {FUNCTION_LINES} lines"] == {}
    assert found[f"modules over {MODULE_LINES} lines"] == {}
    assert found["function lines, median"] <= 6
    assert found["function lines, p90"] <= 14


def test_every_function_is_annotated(tree: House) -> None:
    places = {re.sub(r".*\.(\w+):\d+ ", r"\1:", place) for place in tree.untyped}
    assert places == UNTYPED


def test_broad_excepts_stand_at_the_border_to_a_worker_and_to_a_users_network_only(tree: House) -> None:
    broad = [name for name, module in tree.modules.items() for _ in range(module.broad_excepts)]
    assert broad == ["pipeline.engine.stage", "pipeline.model.registry"]


def test_a_public_name_stands_in_two_files_only_where_it_is_one_concept(tree: House) -> None:
    doubled = {name: places for name, places in tree.doubled.items() if not all(map(MIRRORS.fullmatch, places))}
    assert {name: places for name, places in doubled.items() if name not in ONE_CONCEPT} == {}
    assert set(ONE_CONCEPT) <= set(doubled), "take out what has one place now"


def test_every_module_says_what_it_is_for_and_its_name_says_something(tree: House) -> None:
    assert [name for name, module in tree.modules.items() if not ast.get_docstring(module.tree)] == []
    assert [name for name in tree.modules if name.rpartition(".")[2] in VAGUE] == []


def is_pure(tree: House, name: str) -> bool:
    return any(fnmatch(file_of(tree, name), pattern) for pattern in PURE_FILES)


def impurities(tree: House, name: str) -> list[str]:
    """What a pure module imports or calls that no pure module may."""
    module = tree.modules[name]
    nodes = list(ast.walk(module.tree))
    own = sorted(other for other in tree.imports[name] if not is_pure(tree, other))
    libraries = {one.split(".")[0] for node in nodes for one in module.named(node)} - set(house.FOLDERS)
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in called}
    return [*own, *sorted(libraries - PURE_LIBRARIES), *sorted(names & INPUT_OUTPUT)]


def test_pure_modules_import_pure_modules_only_and_neither_read_nor_write(tree: House) -> None:
    pure = [name for name in tree.modules if is_pure(tree, name)]
    assert len(pure) > len(PURE_FILES), "the patterns find the ops"
    assert {name: found for name in pure if (found := impurities(tree, name))} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from pathlib import Path", ["pathlib"]),
        ("def planted() -> None:\n    open('a')", ["open"]),
        ("def planted() -> None:\n    np.load('a')", ["load"]),
        ("from pipeline.instances.settings import InstanceSettings", ["pipeline.instances.settings"]),
        ("import zarr", ["zarr"]),
    ],
)
def test_a_path_an_open_file_or_settings_in_an_op_are_found(tree: House, code: str, found: list[str]) -> None:
    name = "pipeline.instances.ops.merge"
    assert impurities(planted(tree, name, code), name) == found
