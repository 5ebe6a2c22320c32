"""A training's configuration from a JSON or YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import BadInput

Model = TypeVar("Model", bound=BaseModel)


def checked(text: str, model: type[Model], path: Path) -> Model:
    """The configuration in the JSON of a file.

    Raises:
        BadInput: keys and values that it does not take; all of them at once.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc'])) or 'configuration'}: {one['msg']}" for one in error.errors()]
        raise BadInput(
            str(path), "it must be a training configuration", "; ".join(found), "The keys: pipeline/training/README.md."
        ) from None


def as_json(path: Path) -> str:
    """The text of a JSON or YAML file as JSON.

    Raises:
        BadInput: no such file, or no YAML.
    """
    if not path.is_file():
        raise BadInput(str(path), "the training configuration is a JSON or YAML file", "there is none", "See --help.")
    if path.suffix == ".json":
        return path.read_text()
    import json

    import yaml  # JSON needs no package

    try:
        return json.dumps(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise BadInput(str(path), "it must be YAML or JSON", " ".join(str(error).split())) from None
