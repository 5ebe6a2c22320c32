"""config: the whole configuration with every default and what it means."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from enum import StrEnum
from textwrap import wrap
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.commands.options import Json
from pipeline.evaluation.config import EvaluateConfig
from pipeline.run.config import InstancesConfig, RunConfig

_LINE_WIDTH = 118


class Whose(StrEnum):
    """Which command's configuration."""

    run = "run"
    instances = "instances"
    evaluate = "evaluate"


CONFIGS: dict[Whose, type[BaseModel]] = {
    Whose.run: RunConfig,
    Whose.instances: InstancesConfig,
    Whose.evaluate: EvaluateConfig,
}


def config(
    kind: Annotated[Whose, typer.Argument(help="Whose configuration.")] = Whose.run,
    as_json: Json = False,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema, for editors and forms.")] = False,
) -> None:
    """Print every setting with its default and what it means, as YAML that --config takes back.

    Example: teramito config run
    """
    model = CONFIGS[kind]
    if schema:
        typer.echo(json.dumps(model.model_json_schema(), indent=2))
    elif as_json:
        typer.echo(json.dumps(defaults_of(model), indent=2))
    else:
        typer.echo("\n".join(yaml_lines(model)))


def defaults_of(model: type[BaseModel], given: BaseModel | None = None) -> dict[str, Any]:
    """The default of every setting; None for one that must be given, or that is chosen from the volume.

    Args:
        model: the settings.
        given: values that stand for the model's own defaults, as a section has them in a larger configuration.
    """
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value, section = _default(name, info, given), section_of(info)
        found[name] = defaults_of(section, value) if section is not None else _plain(value)
    return found


def yaml_lines(model: type[BaseModel], given: BaseModel | None = None, depth: int = 0) -> Iterator[str]:
    """Commented YAML. What must be given is commented out, so that the text is a configuration of defaults."""
    indent = "  " * depth
    for name, info in model.model_fields.items():
        value, section = _default(name, info, given), section_of(info)
        meaning = info.description or (section.__doc__ if section is not None else "") or ""
        yield from (f"{indent}# {line}" for line in wrap(" ".join(meaning.split()), _LINE_WIDTH - len(indent)))
        if section is not None:
            yield f"{indent}{name}:"
            yield from yaml_lines(section, value, depth + 1)
        elif info.is_required():
            yield f"{indent}# {name}:   # must be given"
        else:
            yield f"{indent}{name}: {_as_yaml(_plain(value))}"


def _default(name: str, info: FieldInfo, given: BaseModel | None) -> Any:
    if given is not None:
        return getattr(given, name)
    return None if info.is_required() else info.get_default(call_default_factory=True)


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The settings that a field holds, None for a single value."""
    return _section(info.annotation)


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for each in get_args(annotation) if (found := _section(each)) is not None), None)
    return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=list))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("...").strip()
