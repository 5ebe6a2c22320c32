"""Trained networks: list the shipped ones, show one, import a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import Json, VoxelSizeOption, show, voxel_size
from pipeline.errors import BadInput
from pipeline.model.spec import ModelSpec, load_spec, shipped_names, spec_path

APP = typer.Typer(help=__doc__, no_args_is_help=True)


@APP.command("list")
def list_models(as_json: Json = False) -> None:
    """The models that come with the package; each name is a value of --model.

    Example: teramito model list
    """
    found = {name: load_spec(name).description for name in shipped_names()}
    show(found, as_json, [f"{name:14} {description}" for name, description in found.items()])


@APP.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A shipped name, or the .json of a model.")], as_json: Json = False
) -> None:
    """A model's specification, its parameters and what it costs a voxel.

    Example: teramito model show mito-v1
    """
    facts = model_facts(model)
    show(facts, as_json, _lines(facts))


@APP.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="Checkpoint of MitoEM2021-Challenge, .pth.tar.")],
    voxel_size_nm: VoxelSizeOption = None,
    output: Annotated[Path, typer.Option(help="Folder for the two files of the model.")] = Path("models"),
    architecture: Annotated[
        str | None, typer.Option(help="resunet-r or resunet-h-code; told from the layers where it is missing.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; that of the file where it is missing.")] = None,
) -> None:
    """Make a model of the authors' checkpoint: NAME.safetensors and NAME.json, which --model takes.

    Example: teramito model import checkpoint_085000.pth.tar --name rat --voxel-size-nm 30,8,8
    """
    from pipeline.model.authors import import_checkpoint

    size = voxel_size(voxel_size_nm)
    if size is None:
        raise BadInput(
            str(file),
            "an imported model needs the voxel size that it was trained at",
            "a checkpoint does not state it",
            "The MitoEM volumes have --voxel-size-nm 30,8,8.",
        )
    path = import_checkpoint(file, output, name or file.name.split(".")[0], size, architecture)
    typer.echo("\n".join([*_lines(model_facts(str(path))), f"wrote {path}; use it with --model {path}"]))


def model_facts(name_or_path: str) -> dict[str, Any]:
    """A specification, the parameters of its network and its cost; reads the weights."""
    from pipeline.model.cost import gflop_a_megavoxel, parameters
    from pipeline.model.load import trained_network

    spec = load_spec(name_or_path)
    network = trained_network(spec_path(name_or_path), spec)
    return {
        **spec.model_dump(mode="json"),
        "parameters": parameters(network),
        "gflop_a_megavoxel": gflop_a_megavoxel(network, spec.patch),
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    rows = {name: _text(facts[name]) for name in ModelSpec.model_fields if facts[name] not in (None, {}, "")}
    rows["parameters"] = f"{facts['parameters']:,}"
    cost = facts["gflop_a_megavoxel"]
    rows["cost"] = "unknown" if cost is None else f"{cost:.1f} GFLOP a megavoxel, in patches of {_text(facts['patch'])}"
    return [f"{name:14} {text}" for name, text in rows.items()]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)
