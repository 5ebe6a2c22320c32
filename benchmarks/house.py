"""How is the source tree built: layers, rooms, circles of imports, fan-out, lengths, annotations?

Only parsed, never imported: an older checkout can be measured as well, and put beside this one as ``--before``::

    git worktree add --detach ../before 23f28a3
    python -m benchmarks.house --before ../before

The times of ``import pipeline`` and of ``teramito --help`` are medians of several fresh processes. Other load of the
machine counts in those on the clock, far less in those of the processor: compare these where others work too. The
limits stand in ``tests/contracts/test_house.py``.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import resource
import statistics
import subprocess
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import report

FOLDERS = ("pipeline", "workers", "flows")
ROOT = Path(__file__).parents[1]
FAN_OUT, FUNCTION_LINES, MODULE_LINES = 15, 40, 320
_START = {
    "import pipeline": "import pipeline",
    "teramito --help": "import sys; sys.argv = ['teramito', '--help']; from flows.cli import main; main()",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed file; ``name`` with dots, a package by its folder."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def functions(self) -> list[Function]:
        """All functions and methods, nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @cached_property
    def inner_imports(self) -> list[ast.AST]:
        """The statements inside functions that import something."""
        inner = {id(node): node for function in self.functions for node in ast.walk(function) if node is not function}
        return [node for node in inner.values() if next(self.named(node), None)]

    @property
    def public_names(self) -> list[str]:
        """Classes, functions and values defined at the top; a program's ``main`` is none of them."""
        names: list[str] = []
        for node in self.tree.body if self.path.name != "__main__.py" else ():
            if isinstance(node, Function | ast.ClassDef):
                names.append(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
        return [name for name in dict.fromkeys(names) if not name.startswith("_") and name != "main"]

    @property
    def broad_excepts(self) -> int:
        """Handlers that swallow anything; one that puts things right and raises again swallows nothing."""
        return sum(_is_broad(node) for node in ast.walk(self.tree))

    def named(self, node: ast.AST) -> Iterator[str]:
        """What one node imports, as dotted names: ``from a import b`` is ``a.b``, whether b is a module or not."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = self.name.split(".")[: -node.level + self.is_package or None] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(given.value) for given in node.args[:1] if isinstance(given, ast.Constant))


@dataclass(frozen=True)
class House:
    """All modules of a checkout by name, and the lines of its import contract, highest first."""

    modules: Mapping[str, Module]
    layers: Sequence[str]

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The project modules each module imports, in functions and under TYPE_CHECKING too."""
        return {name: self._imported(module, ast.walk(module.tree)) for name, module in self.modules.items()}

    @cached_property
    def circles(self) -> list[tuple[str, ...]]:
        """The largest groups of modules that all reach one another."""
        reached = {name: self._reached(name) for name in self.modules}
        within = [name for name in self.modules if name in reached[name]]
        return sorted({tuple(o for o in within if o in reached[name] and name in reached[o]) for name in within})

    @property
    def wrong_ways(self) -> list[tuple[str, str]]:
        """Imports from a higher layer, or from a sibling in a line of siblings (``|``)."""
        pairs = [(name, other) for name in sorted(self.imports) for other in sorted(self.imports[name])]
        return [(name, other) for name, other in pairs if self._is_wrong(name, other)]

    @property
    def rooms(self) -> list[str]:
        """Folders with modules, the packages of the library and of the flows."""
        folders = {name if self._is_package(name) else name.rpartition(".")[0] for name in self.modules}
        return sorted(folder for folder in folders if folder.split(".")[0] in ("pipeline", "flows"))

    @property
    def loose(self) -> list[str]:
        """Modules that stand in ``pipeline`` itself."""
        return [name for name in self.modules if re.fullmatch(r"pipeline\.\w+", name) and not self._is_package(name)]

    @property
    def functions(self) -> list[tuple[str, Function]]:
        """All functions with their place, ``module:line name``."""
        return [
            (f"{name}:{function.lineno} {function.name}", function)
            for name, module in self.modules.items()
            for function in module.functions
        ]

    @property
    def untyped(self) -> list[str]:
        """Functions that leave a parameter or what they return without annotation."""
        return [place for place, function in self.functions if not _is_typed(function)]

    @property
    def inner_project_imports(self) -> list[str]:
        """Places, ``module:line``, where a function imports a project module."""
        pairs = [(module, node) for module in self.modules.values() for node in module.inner_imports]
        return [
            f"{module.name}:{getattr(node, 'lineno', 0)}" for module, node in pairs if self._imported(module, [node])
        ]

    @property
    def doubled(self) -> dict[str, list[str]]:
        """Public names that two modules or more define, with those modules."""
        places = defaultdict(list)
        for module in self.modules.values():
            for name in module.public_names:
                places[name].append(module.name)
        return {name: found for name, found in sorted(places.items()) if len(found) > 1}

    def _imported(self, module: Module, nodes: Any) -> set[str]:
        named = {name for node in nodes for name in module.named(node)}
        found = {name if name in self.modules else name.rpartition(".")[0] for name in named}
        return {name for name in found if name in self.modules} - {module.name}

    def _reached(self, start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = self.imports[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    def _is_wrong(self, name: str, other: str) -> bool:
        (room, floor, _), (target, ground, apart) = self._placed(name), self._placed(other)
        if room == target or "" in (room, target):
            return False
        return ground < floor or (ground == floor and apart)

    def _placed(self, name: str) -> tuple[str, int, bool]:
        rooms = ((room, i, "|" in line) for i, line in enumerate(self.layers) for room in re.split(r"\s*[|:]\s*", line))
        return next((found for found in rooms if f"{name}.".startswith(f"{found[0]}.")), ("", 0, False))

    def _is_package(self, name: str) -> bool:
        return self.modules[name].is_package


def read(root: Path = ROOT) -> House:
    """Parse a checkout; its layers are those of the longest contract of that kind in ``pyproject.toml``."""
    modules = [_module(root, path) for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = max((contract.get("layers", []) for contract in contracts), key=len)
    return House({module.name: module for module in modules}, layers)


def figures(house: House) -> dict[str, Any]:
    """All figures of a checkout by name: numbers, and lists or tables of what they count."""
    lengths = {place: _length(function) for place, function in house.functions}
    fan_out = {name: len(found) for name, found in house.imports.items()}
    lines = {name: module.lines for name, module in house.modules.items()}
    ordered = sorted(lengths.values()) or [0]
    return {
        "modules": len(house.modules),
        "loose modules in pipeline": len(house.loose),
        "layers": len(house.layers),
        "imports up or from a sibling": len(house.wrong_ways),
        "import circles": len(house.circles),
        "imports inside functions": sum(len(module.inner_imports) for module in house.modules.values()),
        "of them of the project": len(house.inner_project_imports),
        "rooms": len(house.rooms),
        "largest fan-out": max(fan_out.values()),
        "function lines, median": statistics.median(ordered),
        "function lines, p90": ordered[int(0.9 * len(ordered))],
        "function lines, longest": ordered[-1],
        "module lines, longest": max(lines.values()),
        "functions typed, %": 100 * (1 - len(house.untyped) / len(ordered)),
        "broad excepts": sum(module.broad_excepts for module in house.modules.values()),
        "public names in two files": len(house.doubled),
        "circles": list(map(list, house.circles)),
        f"fan-out over {FAN_OUT}": _above(fan_out, FAN_OUT),
        f"functions over {FUNCTION_LINES} lines": _above(lengths, FUNCTION_LINES),
        f"modules over {MODULE_LINES} lines": _above(lines, MODULE_LINES),
        "untyped functions": house.untyped,
        "names in two files": house.doubled,
    }


def times(root: Path, runs: int) -> dict[str, float]:
    """Seconds to import the library and to print the help, on the clock and of a processor: medians of ``runs``."""
    found: dict[str, float] = {}
    for name, code in _START.items():
        clock, processor = zip(*(_seconds(root, code) for _ in range(runs)), strict=True)
        found |= {f"{name}, s": statistics.median(clock), f"{name}, processor s": statistics.median(processor)}
    return found


def main(root: Path, before: Path | None, runs: int, path: Path) -> list[dict[str, Any]]:
    """Measure one checkout or two, print and write the rows."""
    sides = {"before": before, "after": root} if before else {"after": root}
    found = {side: figures(read(at)) | (times(at, runs) if runs else {}) for side, at in sides.items()}
    rows = [{"figure": name, **{side: found[side][name] for side in found}} for name in found["after"]]
    print(report.table([row for row in rows if not isinstance(row["after"], list | dict)]))
    for row in rows:
        if isinstance(row["after"], list | dict):
            print(f"\n{row['figure']}: {_listed(row['after'])}")
    report.write(path.stem, rows, path.parent)
    return rows


def _module(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    text = path.read_text()
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(text), len(text.splitlines()))


def _length(function: Function) -> int:
    """Lines of a function from its ``def`` on, without the docstring."""
    first = function.body[0]
    prose = ast.get_docstring(function) is not None
    return _span(function) - (_span(first) if prose else 0)


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_typed(function: Function) -> bool:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    bare = [one.arg for one in named if one.annotation is None]
    return function.returns is not None and bare in ([], ["self"], ["cls"])


def _is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    raises_again = bool(node.body) and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
    caught = "" if node.type is None else ast.unparse(node.type)
    return not raises_again and (not caught or bool(re.search(r"\b(Base)?Exception\b", caught)))


def _above(values: Mapping[str, int], most: int) -> dict[str, int]:
    return {name: value for name, value in Counter(values).most_common() if value > most}


def _listed(found: Any) -> str:
    lines = (
        [f"{key}: {value}" for key, value in found.items()] if isinstance(found, dict) else [str(one) for one in found]
    )
    return "".join(f"\n  {line}" for line in lines) or "none"


def _seconds(root: Path, code: str) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
    began, used = time.perf_counter(), _processor_seconds()
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    return round(time.perf_counter() - began, 3), round(_processor_seconds() - used, 3)


def _processor_seconds() -> float:
    """Of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--before", type=Path, help="an older checkout to put beside it")
    parser.add_argument("--runs", type=int, default=7, help="processes a time is the median of; 0 for no times")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "house.json", help="where the rows are written")
    options = parser.parse_args()
    main(options.root, options.before, options.runs, options.json)
