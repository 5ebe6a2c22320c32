"""evaluate: how good a segmentation is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import (
    ConfigFile,
    Json,
    SettingsOption,
    VoxelSizeOption,
    config_values,
    show,
    voxel_size,
)
from flows.terminal.interrupts import interruptible
from flows.terminal.progress import terminal_watcher
from pipeline.engine.directory import RunDirectory
from pipeline.errors import BadInput
from pipeline.evaluation.blockwise import compared_blocks, kept_blocks, scores_of
from pipeline.evaluation.comparison import Comparison, addresses_of, comparison
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.illustration import open_image, sheet_of
from pipeline.evaluation.matches import require_ending, write_matches
from pipeline.evaluation.overlaps import Contingency
from pipeline.evaluation.results import MATCHES, SHEET, require_target, withdraw, write_scores
from pipeline.settings import parse_settings
from pipeline.store.files import write_whole

_CANCELLED = "cancelled; with --output the blocks compared so far are kept and the same command goes on"

_Prediction = Annotated[
    str, typer.Argument(help="Segmentation: a run's directory, zarr, TIFF, file.h5:dataset, precomputed.")
]
_Output = Annotated[
    str | None, typer.Option("--output", help="Directory for scores, matches and sheet; the same again resumes.")
]
_Again = Annotated[bool, typer.Option("--again", help="Compare anew, for example after a volume was changed in place.")]
_Preset = Annotated[
    str | None, typer.Option(help="mitoem (limits 5e3,1.5e4) or challenge2021 (5e3,3e4; ignore below 2000).")
]
_SizeLimits = Annotated[
    str | None, typer.Option("--size-limits", help="Most voxels of small and of medium instances, A,B.")
]
_IgnoreBelow = Annotated[int | None, typer.Option("--ignore-below", help="Drop true instances of fewer voxels.")]
_Classes = Annotated[
    bool, typer.Option("--classes", help="The volumes are class maps: IoU of each class, and their mean.")
]
_Matches = Annotated[
    Path | None, typer.Option("--matches", help="Write what was compared with what: .parquet or .csv.")
]
_Sheet = Annotated[
    Path | None, typer.Option("--sheet", help="Draw best, worst, falsely merged and split instances: .png.")
]


def evaluate_command(
    prediction: _Prediction,
    truth: Annotated[str, typer.Argument(help="Ground truth of the same shape.")],
    output: _Output = None,
    again: _Again = False,
    preset: _Preset = None,
    size_limits: _SizeLimits = None,
    ignore_below: _IgnoreBelow = None,
    classes: _Classes = False,
    matches: _Matches = None,
    sheet: _Sheet = None,
    raw: Annotated[str | None, typer.Option("--raw", help="The image to draw them on.")] = None,
    voxel_size_nm: VoxelSizeOption = None,
    config_file: ConfigFile = None,
    set_: SettingsOption = None,
    as_json: Json = False,
) -> None:
    """Score a segmentation against the truth: foreground, average precision, information, matches, pictures.

    A run's directory stands for its segmentation (precomputed, or the array where that is not exported).

    Example: teramito evaluate run1 truth.tif --json --sheet sheet.png
    """
    given: dict[str, Any] = {
        "prediction": prediction,
        "truth": truth,
        "output": output,
        "raw": raw,
        "voxel_size_nm": voxel_size(voxel_size_nm),
        "preset": preset,
        "size_limits": _limits(size_limits),
        "ignore_below": ignore_below,
        "classes": classes or None,
    }
    config = parse_settings(EvaluateConfig, _in_this_process(config_values(config_file, given, set_)))
    _require_files(config, matches, sheet, again)
    scores = _compared(config, matches, sheet, again)
    show(scores, as_json, score_lines(scores))


def _in_this_process(values: dict[str, Any]) -> dict[str, Any]:
    """The same values; a cluster with a size and no kind is threads, as by default."""
    cluster = values.get("cluster", {})
    return {**values, "cluster": {"kind": "none", **cluster}} if isinstance(cluster, dict) else values


def score_lines(scores: dict[str, float]) -> list[str]:
    """The scores for people."""
    return [
        f"  {name:20} {value:.4f}" if isinstance(value, float) else f"  {name:20} {value}"
        for name, value in scores.items()
    ]


def _compared(config: EvaluateConfig, matches: Path | None, sheet: Path | None, again: bool) -> dict[str, float]:
    from workers.cluster import open_executor

    made = comparison(config)
    open_image(made, config)
    with made.opened(again) as directory, interruptible(_CANCELLED):
        _say_what_is_kept(made, directory)
        with open_executor(config.cluster) as executor, terminal_watcher() as watcher:
            table = compared_blocks(made, directory, executor, watcher)
        scores = scores_of(table, config)
        withdraw(directory.root, config.classes)
        if not config.classes:
            _write_instances(config, made, directory, table, _places(made, directory, matches, sheet))
        if made.output is not None:
            write_scores(directory.root, scores, config, addresses_of(made, config))
    return scores


def _say_what_is_kept(made: Comparison, directory: RunDirectory) -> None:
    kept = kept_blocks(made, directory)
    if not kept:
        return
    unseen = (
        f"; whether {' and '.join(made.remote)} changed since cannot be seen, --again compares anew"
        if made.remote
        else ""
    )
    typer.echo(f"{kept} of {len(made.grid)} blocks are taken from {directory.root}{unseen}", err=True)


def _places(
    made: Comparison, directory: RunDirectory, matches: Path | None, sheet: Path | None
) -> tuple[list[Path], list[Path]]:
    """Where match tables and sheets go: the files named, and the directory."""
    own = [directory.root / MATCHES], [directory.root / SHEET]
    named = [path for path in (matches,) if path], [path for path in (sheet,) if path]
    return named if made.output is None else (named[0] + own[0], named[1] + own[1])


def _write_instances(
    config: EvaluateConfig,
    made: Comparison,
    directory: RunDirectory,
    table: Contingency,
    places: tuple[list[Path], list[Path]],
) -> None:
    for path in places[0]:
        with _written(path, made):
            write_matches(path, table, config.scoring)
    old = None if made.output is None else directory.root / SHEET
    picture = sheet_of(table, made, directory, config, old) if places[1] else b""
    for path in places[1]:
        with _written(path, made):
            write_whole(path, picture)


@contextmanager
def _written(path: Path, made: Comparison) -> Iterator[None]:
    """A disk that fails while a file is written costs a comparison without a directory: say so."""
    try:
        yield
    except OSError as error:
        if made.output is not None:
            raise
        nearest = "Give --output too: then the next try compares nothing again."
        raise BadInput(str(path), "the file must be writable", f"{error}", nearest) from error


def _require_files(config: EvaluateConfig, matches: Path | None, sheet: Path | None, again: bool) -> None:
    if again and config.output is None:
        raise BadInput("--again", "it goes with --output", "without a directory everything is compared anyway")
    if config.classes and (matches or sheet):
        raise BadInput("--classes", "it has neither --matches nor --sheet", "a class is no instance")
    if matches is not None:
        require_ending(matches)
        require_target("--matches", matches)
    if sheet is not None:
        if sheet.suffix != ".png":
            near = f"For example {sheet.with_suffix('.png')}."
            raise BadInput(f"--sheet {sheet}", "the file ends in .png", nearest=near)
        require_target("--sheet", sheet)


def _limits(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        small, medium = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(
            f"--size-limits {text}", "it must be two numbers of voxels A,B", nearest="For example 5e3,1.5e4."
        ) from None
    return small, medium
