"""tune: thresholds, growth and smallest size chosen on a labelled part of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from shlex import join
from typing import Annotated, Any

import typer
import yaml

from flows.commands.options import Json, show
from flows.commands.runs import instances_run
from pipeline.errors import BadInput
from pipeline.evaluation.labelled_part import labelled, maps_of, present_settings, require_objects
from pipeline.evaluation.tune import OBJECTIVES, Candidate, Search, Tuned
from pipeline.store.files import write_whole

_COLUMNS = ("seed_above", "boundary_below", "mask_above", "grow_nm")
_SCORES = ("iou", "ap50_95", "ap50", "ap75")


def tune(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, finished or predicted.")],
    truth: Annotated[str, typer.Argument(help="Instances of the run's volume, or of the part that --crop names.")],
    crop: Annotated[
        str | None, typer.Option(help="The labelled part, voxels z0:z1,y0:y1,x0:x1 of the run's volume.")
    ] = None,
    by: Annotated[str, typer.Option(help=f"What is maximised: {', '.join(OBJECTIVES)} (of iou and ap50_95).")] = "mean",
    output: Annotated[
        Path | None, typer.Option(help="The configuration to write; RUN/tuned.yaml if not given.")
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="How many of the best settings to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Choose T1, T2, mask, growth and smallest size on a labelled part of a run, without running the network again.

    Nothing is stored before the end: a search that is stopped begins anew.

    Example: teramito tune run1 truth.tif --crop 0:64,0:512,0:512 --output tuned.yaml
    """
    run = instances_run(directory)
    target = output or directory / "tuned.yaml"
    _require_options(by, target)
    search = Search(
        labelled(run, truth, crop),
        *present_settings(run),
        by=by,
        threads=min(2, os.cpu_count() or 1),
        progress=_progress(),
    )
    require_objects(search, truth)
    tuned = search.run()
    facts = _facts(search, tuned, best)
    facts |= {"run": str(run.root), "maps": maps_of(run), "truth": truth, "crop": crop, "output": str(target)}
    write_whole(target.absolute(), _configuration(facts, tuned).encode())
    for warning in tuned.warnings:
        typer.echo(f"warning: {warning}.", err=True)
    show(facts, as_json, _lines(facts))


def _require_options(by: str, target: Path) -> None:
    if by not in OBJECTIVES:
        raise BadInput(f"--by {by}", f"it must be one of {', '.join(OBJECTIVES)}")
    if target.exists():
        raise BadInput(
            f"--output {target}",
            "the file must not exist",
            "somebody's choice may stand in it",
            "Give another name with --output, or delete it first.",
        )
    if not target.absolute().parent.is_dir():
        raise BadInput(f"--output {target}", f"the folder {target.absolute().parent} must exist")


def _facts(search: Search, tuned: Tuned, best: int) -> dict[str, Any]:
    return {
        "by": search.by,
        "voxels": int(search.labelled.truth.size),
        "instances_truth": search.objects,
        "tried": len(tuned.ranked),
        "present": _row(search, tuned.present),
        "best": [_row(search, candidate) for candidate in tuned.ranked[:best]],
        "warnings": list(tuned.warnings),
    }


def _row(search: Search, candidate: Candidate) -> dict[str, Any]:
    return {
        "score": round(search.score(candidate), 4),
        **{name: getattr(candidate.choice, name) for name in _COLUMNS},
        "minimum_voxels": candidate.minimum_voxels,
        **{name: round(candidate.scores[name], 4) for name in _SCORES},
        "instances": int(candidate.scores["instances"]),
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    header = list(facts["present"])
    rows = [("present", facts["present"]), *((f"{n}.", row) for n, row in enumerate(facts["best"], 1))]
    table = [["", *header], *([name, *(f"{value:g}" for value in row.values())] for name, row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return [
        f"{facts['tried']} settings tried on {facts['voxels']:,} voxels with {facts['instances_truth']} true instances",
        *("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table),
        "chosen on this part, so these scores flatter: judge the choice on another labelled part",
        f"written: {facts['output']}",
        f"use it:  {join(['teramito', 'instances', *facts['maps'], 'OUT', '--config', facts['output']])}",
    ]


def _configuration(facts: dict[str, Any], tuned: Tuned) -> str:
    part = "all of it" if facts["crop"] is None else f"[{facts['crop'].strip('[]')}]"
    before, after = facts["present"], facts["best"][0]
    told = [
        f"Chosen by `teramito tune` on {facts['run']}, {part}, against {facts['truth']}:",
        f"{facts['instances_truth']} true instances in {facts['voxels']} voxels, {facts['tried']} settings tried, by "
        f"{facts['by']}.",
        *(f"{name:8} {before[name]:.4f} before, {after[name]:.4f} with these settings" for name in _SCORES),
        "They were chosen on this part: judge them on another.",
        *(f"Warning: {warning}." for warning in tuned.warnings),
    ]
    values = tuned.settings.model_dump(mode="json", exclude_defaults=True)
    return "".join(f"# {line}\n" for line in told) + yaml.safe_dump({"instances": values}, sort_keys=False)


def _progress() -> Callable[[int, Candidate], None]:
    def report(tried: int, best: Candidate) -> None:
        if tried % 20 == 0:
            scores = ", ".join(f"{name} {best.scores[name]:.3f}" for name in _SCORES)
            typer.echo(f"tune: {tried} settings tried, the best so far: {scores}", err=True)

    return report
