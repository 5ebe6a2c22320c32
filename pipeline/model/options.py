"""What can be chosen about each network, as strict pydantic models. Imports no torch.

`OPTIONS` holds a model for every architecture with a name; `registry.register` adds those of a user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import BadInput

Norm = Literal["none", "batch", "instance"]
Padding = Literal["replicate", "zeros"]
Unit = Literal["acb", "residual", "se", "eca"]
Upsampling = Literal["interpolate", "transposed"]
OptionWidth = Annotated[int, Field(ge=1)]
Widths = tuple[OptionWidth, OptionWidth, OptionWidth, OptionWidth, OptionWidth]
PUBLISHED_WIDTHS = (28, 36, 48, 64, 80)
CODE_WIDTHS = (16, 32, 48, 64, 80)
FILE_KINDS: Mapping[str, tuple[str, ...]] = {"torchscript": (".pt", ".ts", ".pth"), "exported": (".pt2",)}
"""Architectures that are a file of a whole network, and how its name ends."""
_CLASS_IN_FILE = re.compile(r"^(?P<file>[^/\\]+\.py):(?P<name>[A-Za-z_]\w*)$")


class Options(BaseModel):
    """What every network of this package lets choose.

    Attributes:
        widths: channels of the five levels, finest first.
        norm: layer after each convolution but the heads; the published networks have none.
        unit: the block of every level: "acb" (anisotropic, the published one), "residual" (plain 3x3x3), "se" and
            "eca" (that with squeeze-and-excitation or efficient channel attention).
        upsampling: "interpolate" repeats the edge voxel beyond the border, "transposed" is the fixed transposed
            convolution of the authors' code, which sees zeros there: edges times 0.75, corners times 0.5625.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    widths: Widths = PUBLISHED_WIDTHS
    norm: Norm = "none"
    unit: Unit = "acb"
    upsampling: Upsampling = "transposed"


class ResUNetROptions(Options):
    """Of `resunet_r.ResUNetR`; the defaults are the published network.

    Attributes:
        padding: what lies beyond the border; the published network repeats the edge voxel.
    """

    padding: Padding = "replicate"


class ResUNetHOptions(Options):
    """Of `resunet_h.ResUNetH`; the defaults are the network of the paper.

    Attributes:
        padding: as for Res-UNet-R.
        top_skip: whether the two decoders share the convolution in the finest skip connection, or have one each.
    """

    padding: Padding = "replicate"
    upsampling: Upsampling = "interpolate"
    top_skip: Literal["shared", "own"] = "shared"


class ResUNetHCodeOptions(Options):
    """Of `resunet_h_code.ResUNetHCode`; the defaults are the network of the authors' code."""

    widths: Widths = CODE_WIDTHS


class AnyOptions(BaseModel):
    """Of a class that checks its options itself."""

    model_config = ConfigDict(extra="allow", frozen=True)


class NoOptions(BaseModel):
    """Of a file of a whole network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_width: int = Field(default=32, ge=1)
    """Channels at full resolution, only to estimate memory."""


OPTIONS: dict[str, type[BaseModel]] = {
    "resunet-r": ResUNetROptions,
    "resunet-h": ResUNetHOptions,
    "resunet-h-code": ResUNetHCodeOptions,
    **dict.fromkeys(FILE_KINDS, NoOptions),
}


def class_in_file(architecture: str) -> tuple[str, str] | None:
    """("my_net.py", "MyNet") of "my_net.py:MyNet"; None of any other architecture."""
    found = _CLASS_IN_FILE.match(architecture)
    return (found["file"], found["name"]) if found else None


def checked_options(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with every default filled in, lists as JSON has them.

    Args:
        architecture: a name of `OPTIONS`, or "FILE.py:CLASS".
        options: JSON values (tuples count as lists).

    Raises:
        BadInput: no such architecture, or an option that it does not have or that has another value.
    """
    if class_in_file(architecture):
        model: type[BaseModel] = AnyOptions
    elif architecture in OPTIONS:
        model = OPTIONS[architecture]
    else:
        raise BadInput(
            f"architecture {architecture!r}",
            "an architecture is a known name, FILE.py:CLASS, torchscript or exported",
            nearest=f"{_nearest(architecture, OPTIONS)}Known: {', '.join(sorted(OPTIONS))}.",
        )
    try:
        checked = model.model_validate_json(json.dumps(dict(options)))
    except ValidationError as error:
        raise _refused(architecture, model, error) from None
    return checked.model_dump(mode="json")


def _refused(architecture: str, model: type[BaseModel], error: ValidationError) -> BadInput:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "options"
    unknown = first["type"] == "extra_forbidden"
    return BadInput(
        f"option {where} of {architecture}",
        "an option is one that the architecture has, with a value that it takes",
        "there is no such option" if unknown else str(first["msg"]),
        f"{_nearest(where, model.model_fields)}Options: {', '.join(sorted(model.model_fields))}." if unknown else "",
    )


def _nearest(given: str, names: Mapping[str, Any]) -> str:
    close = get_close_matches(given, names, 1)
    return f"Did you mean {close[0]}? " if close else ""
