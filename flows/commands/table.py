"""table: rows of a run's instance table, without loading it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import Json
from flows.commands.runs import instances_run
from pipeline.engine.directory import RunDirectory
from pipeline.errors import BadInput
from pipeline.instances.query import InstanceTable
from pipeline.run.verify import is_finished

Row = dict[str, Any]


def table(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or its instances.parquet.")],
    where: Annotated[
        str | None, typer.Option(help='A condition, for example "volume_um3 > 0.1 and touches_border == false".')
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this column; -COLUMN for the largest first.")] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="At most this many rows; 0 for all (with --json and --csv as a stream).")
    ] = 20,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas; all if not given.")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Show instances of a run: filter, sort, choose columns; reads the table part by part.

    Example: teramito table run1 --where "volume_um3 > 0.1 and touches_border == false" --sort -volume_um3 --limit 10
    """
    if as_json and as_csv:
        raise BadInput("--json --csv", "give one of them")
    found = _opened(directory)
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    batches = found.rows(where, sort, limit or None, names)
    rows = (row for batch in batches for row in batch.to_pylist())
    shown = names or found.columns
    if as_json:
        _print_json(rows)
    elif as_csv:
        _print_csv(rows, shown)
    else:
        _print_lines(list(rows), shown)
        typer.echo(f"{found.count(where):,} of {found.count():,} instances match", err=True)


def _opened(directory: Path) -> InstanceTable:
    """The table of a run, or the one at a path; a word where it may still change."""
    path = directory.expanduser().absolute()
    named = path.suffix == ".parquet" and not RunDirectory(path).manifest.exists()
    if named and not RunDirectory(path.parent).manifest.exists():
        return InstanceTable.open(path)  # copied from somewhere
    run = instances_run(path.parent if named else directory)
    if not is_finished(run):
        typer.echo(f"warning: {run.root} is not verified yet; its table may change", err=True)
    return InstanceTable.open(path if named else run.instances)


def _print_json(rows: Iterator[Row]) -> None:
    """A list of objects, a row a line; ids are whole numbers of any size, what is not a number is null."""
    before = "["
    for row in rows:
        typer.echo(before + "\n" + json.dumps({name: _json_value(value) for name, value in row.items()}), nl=False)
        before = ","
    typer.echo("[]" if before == "[" else "\n]")


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


def _print_csv(rows: Iterator[Row], names: list[str]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(names)
    for row in rows:
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row.values()])


def _print_lines(rows: list[Row], names: list[str]) -> None:
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
