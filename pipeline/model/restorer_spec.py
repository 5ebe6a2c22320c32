"""What a trained restorer of slices is: network, weights and their hash, patch. Imports no torch.

A restorer gives grey levels, not probabilities: it is no model of mitochondria, and neither is taken for the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from pipeline.errors import BadInput
from pipeline.model.pinned import STRICT, PinnedSpec, Shelf, first_error

RESTORERS = Path(__file__).parent / "restorers"
INTERPOLATION_WIDTHS = (32, 64, 128, 256, 512, 512)
INTERPOLATION_TAPS = 51
NOISE2NOISE_WIDTH = 48
NOISE2NOISE_POOLINGS = 5
RestorerKind = Literal["interpolation", "noise2noise"]
Width = Annotated[int, Field(ge=1)]
_SHELF = Shelf(RESTORERS, "restorer")
_ONLY_MODELS = {"architecture", "thresholds", "normalisation"}
"""Fields that only a model of mitochondria has."""


class InterpolationOptions(BaseModel):
    """Of `interpolation.InterpolationNet`; the defaults are the published network.

    Attributes:
        widths: channels of the levels, finest first; each next level has half the height and width.
        taps: length of the kernels, odd.
    """

    model_config = STRICT

    widths: tuple[Width, ...] = Field(default=INTERPOLATION_WIDTHS, min_length=2)
    taps: int = Field(default=INTERPOLATION_TAPS, ge=1)

    @field_validator("taps")
    @classmethod
    def _has_a_centre(cls, taps: int) -> int:
        if taps % 2 == 0:
            raise ValueError(f"an odd number, so that a kernel has a centre: {taps - 1} or {taps + 1}")
        return taps

    @property
    def multiple(self) -> int:
        """What the height and width of a patch are multiples of."""
        halvings = len(self.widths) - 1
        return 1 << halvings


class Noise2NoiseOptions(BaseModel):
    """Of `noise2noise.Noise2NoiseNet`; the default is the published network.

    Attributes:
        width: channels on the way down; twice that on the way up.
    """

    model_config = STRICT

    width: int = Field(default=NOISE2NOISE_WIDTH, ge=2)

    @property
    def multiple(self) -> int:
        """What the height and width of a patch are multiples of."""
        return 1 << NOISE2NOISE_POOLINGS


_OPTIONS: Mapping[RestorerKind, type[InterpolationOptions] | type[Noise2NoiseOptions]] = {
    "interpolation": InterpolationOptions,
    "noise2noise": Noise2NoiseOptions,
}


def fill_options(kind: RestorerKind, options: dict[str, Any]) -> InterpolationOptions | Noise2NoiseOptions:
    """Check the options of a network, and fill in those that are not given, in place.

    Raises:
        ValueError: one is unknown or cannot be; names it.
    """
    try:
        checked = _OPTIONS[kind].model_validate_json(json.dumps(options))
    except ValidationError as error:
        where, said = first_error(error)
        raise ValueError(f"options of {kind}: {where}: {said}") from None
    options.clear()
    options.update(checked.model_dump(mode="json"))
    return checked


class Unsharp(BaseModel):
    """An unsharp mask after restoring: x + amount (x - Gaussian(x)).

    Attributes:
        radius: standard deviation of the Gaussian, pixels.
        amount: of ImageJ's mask weight w it is w / (1 - w).
    """

    model_config = STRICT

    radius: float = Field(gt=0.0)
    amount: float = Field(gt=0.0)


class RestorerSpec(PinnedSpec):
    """The content of NAME.json in `RESTORERS`, or of a user's.

    Attributes:
        name, description: for people.
        kind: "interpolation" makes a slice of its two neighbours, "noise2noise" removes the noise of one slice.
        options: arguments of the network's class; stored with every default filled in.
        multiple: what the height and width of a patch are multiples of.
        patch, overlap: (H, W) in pixels, of inference.
        voxel_size_nm: (z, y, x) that it was trained at, for people; it is used at any.
        unsharp: after restoring; noise2noise only.
        weights: file beside the specification, in safetensors format.
        sha256: of that file, checked before it is read.
    """

    kind: RestorerKind
    options: dict[str, Any] = Field(default_factory=dict)
    multiple: int = Field(ge=1)
    patch: tuple[int, int] = (256, 256)
    overlap: tuple[int, int] = (64, 64)
    voxel_size_nm: tuple[float, float, float] | None = None
    unsharp: Unsharp | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> RestorerSpec:
        needed = fill_options(self.kind, self.options).multiple
        if self.multiple % needed:
            raise ValueError(f"multiple: the network needs multiples of {needed}")
        if self.unsharp is not None and self.kind != "noise2noise":
            raise ValueError("unsharp: of noise2noise only")
        return self

    @model_validator(mode="after")
    def _patch_fits(self) -> RestorerSpec:
        if min(self.patch) < 1 or any(size % self.multiple for size in self.patch):
            raise ValueError(f"patch: positive multiples of {self.multiple}; nearest {self.nearest_patch()}")
        if any(not 0 <= shared < size for shared, size in zip(self.overlap, self.patch, strict=True)):
            raise ValueError("overlap: at least 0 and less than the patch in each axis")
        return self

    @property
    def channels(self) -> int:
        """Slices that go in for one that comes out."""
        return 2 if self.kind == "interpolation" else 1

    def nearest_patch(self) -> list[int]:
        """The patch rounded up to what the network takes."""
        return [max(1, -(-size // self.multiple)) * self.multiple for size in self.patch]


def restorer_names() -> list[str]:
    """Names of the restorers that come with the package."""
    return _SHELF.names()


def restorer_path(name_or_path: str | Path) -> Path:
    """The JSON file of a shipped name, or of a path that ends in .json.

    Raises:
        BadInput: no such name or file.
    """
    return _SHELF.path(name_or_path)


def load_restorer_spec(name_or_path: str | Path) -> RestorerSpec:
    """Read a specification; neither the weights nor torch are touched.

    Raises:
        BadInput: unknown name, a model of mitochondria, or a file that is no specification.
    """
    path = restorer_path(name_or_path)
    content = path.read_bytes()
    try:
        return RestorerSpec.model_validate_json(content)
    except ValidationError as error:
        if _is_model(content):
            raise _not_a_restorer(path) from None
        where, said = first_error(error)
        raise BadInput(f"{path}: {where}", "a restorer has the fields of RestorerSpec and no others", said) from error


def _is_model(content: bytes) -> bool:
    try:
        fields = json.loads(content)
    except ValueError:
        return False
    return isinstance(fields, dict) and "kind" not in fields and bool(_ONLY_MODELS & fields.keys())


def _not_a_restorer(path: Path) -> BadInput:
    return BadInput(
        str(path),
        "a restorer gives the grey levels of a slice",
        "this is a model that gives the probabilities of mitochondria",
        f"Shipped restorers: {', '.join(restorer_names()) or 'none'}.",
    )
