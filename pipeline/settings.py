"""Settings from plain values: strict, with every wrong key and value refused in words at once."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import BadInput, raise_all

S = TypeVar("S", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_settings(kind: type[S], values: dict[str, Any]) -> S:
    """Plain values as settings of any kind; see ``pipeline.run.config.parse_config``."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_problem(kind, dict(detail)) for detail in error.errors()]
    raise_all(problems)
    raise AssertionError


def with_override(values: dict[str, Any], setting: str) -> dict[str, Any]:
    """Values with one ``key.sub=value`` of the command line put in; the value is YAML (``[32,128,96]``, ``0.5``, text).

    Raises:
        BadInput: there is no ``=``.
    """
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise BadInput(
            f"--set {setting}", "a setting is key.sub=value", nearest="For example --set block.shape=[64,256,256]."
        )
    *parents, last = key.strip().split(".")
    changed = dict(values)
    place = changed
    for name in parents:
        inner = mode_alone(place.get(name)) if name == "denoise" else place.get(name)
        place[name] = dict(inner) if isinstance(inner, dict) else {}
        place = place[name]
    value = _yaml_value(setting, text)
    if key.strip() == "denoise" and isinstance(mode_alone(value), dict):  # the word alone leaves the rest of it
        value = {**(mode_alone(place.get(last)) or {}), **mode_alone(value)}
    place[last] = value
    return changed


def mode_alone(value: Any) -> Any:
    """``denoise: auto`` says the mode alone. YAML reads a bare ``off`` as false."""
    return {"mode": "off" if value is False else value} if isinstance(value, str | bool) else value


def _yaml_value(setting: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(
            f"--set {setting}",
            "the value must be YAML",
            " ".join(str(error).split()),
            "For example --set block.shape=[64,256,256].",
        ) from None


def _problem(kind: type[BaseModel], detail: dict[str, Any]) -> BadInput:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location) or "configuration"
    if detail["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        near = get_close_matches(location[-1], known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Known keys here: {', '.join(known)}."
        return BadInput(key, "there is no such setting", nearest=hint)
    if detail["type"] == "missing":
        return BadInput(key, "it must be given", nearest=_described(kind, location))
    return BadInput(f"{key}={detail['input']!r}", detail["msg"], nearest=_described(kind, location))


def _known_keys(kind: type[BaseModel], parents: list[str]) -> list[str]:
    for name in parents:
        inner = kind.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def _described(kind: type[BaseModel], location: list[str]) -> str:
    for depth, name in enumerate(location):
        found = kind.model_fields.get(name)
        if found is None:
            return ""
        if isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel) and depth + 1 < len(location):
            kind = found.annotation
            continue
        return found.description or ""
    return ""


PositiveTriple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
NaturalTriple = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Count = Annotated[int, Field(ge=1)]

# Infinity is no length, and has no place in JSON.
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SizeNm = tuple[Length, Length, Length]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Reach = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Voxels = Annotated[int, Field(ge=0)]
