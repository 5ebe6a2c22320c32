"""Values of the command line that several commands take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, Vec3, float_vec3, vec3
from pipeline.settings import with_override

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
VoxelSizeOption = Annotated[
    str | None,
    typer.Option("--voxel-size-nm", help="Voxel size in nm, Z,Y,X; needed where the file does not state it."),
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, key.sub=value; may be given again and again.")
]


def voxel_size(text: str | None) -> FloatVec3 | None:
    """``30,8,8`` as floats, or None."""
    if text is None:
        return None
    try:
        size = float_vec3(float(part) for part in text.split(","))
    except ValueError:
        raise _bad("--voxel-size-nm", text, "three numbers Z,Y,X in nanometres, for example 30,8,8") from None
    if min(size) <= 0:
        raise _bad("--voxel-size-nm", text, "three numbers above 0")
    return size


def shape(name: str, text: str) -> Vec3:
    """``96,384,384`` as integers."""
    try:
        return vec3(int(part) for part in text.strip("[]()").split(","))
    except ValueError:
        raise _bad(name, text, "three whole numbers Z,Y,X, for example 96,384,384") from None


def config_values(file: Path | None, given: Mapping[str, Any], settings: Sequence[str] | None) -> dict[str, Any]:
    """The values of a configuration file, then of options, then of ``--set``; later ones win."""
    values = {} if file is None else _loaded(file)
    values.update({key: value for key, value in given.items() if value is not None})
    for setting in settings or ():
        values = with_override(values, setting)
    return values


def show(report: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """Print a report as JSON or as lines."""
    typer.echo(json.dumps(report, indent=2, default=str) if as_json else "\n".join(lines))


def _loaded(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text())
    except OSError as error:
        raise BadInput(f"--config {file}", "the file must be readable", str(error.strerror)) from None
    except yaml.YAMLError as error:
        raise BadInput(f"--config {file}", "it must be YAML", " ".join(str(error).split())) from None
    if not isinstance(values, dict):
        raise BadInput(f"--config {file}", "it must hold keys and values", nearest="For example: input: volume.zarr")
    return values


def _bad(option: str, given: str, rule: str) -> BadInput:
    return BadInput(f"{option} {given}", f"it must be {rule}")


ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with any of the settings.")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run without a Prefect server.")]
