"""What a trained model is: architecture, weights and their hash, normalisation, voxel size. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.errors import BadInput
from pipeline.geometry import Triple, vec3
from pipeline.model.normalisation import Normalisation
from pipeline.model.options import FILE_KINDS, checked_options, class_in_file
from pipeline.model.pinned import STRICT, PinnedSpec, Shelf, first_error, pinned_bytes

SHIPPED = Path(__file__).parent / "weights"
_SHELF = Shelf(SHIPPED, "model")


class Thresholds(BaseModel):
    """Recommended post-processing, tuned with the model; probabilities 0..1.

    Attributes:
        semantic: mask = semantic > this.
        seed_semantic, seed_boundary: seed = semantic > seed_semantic and boundary < seed_boundary.
        grow_nm: distance by which seeds grow through the mask.
        minimum_um3: smaller objects are dropped. Whole mitochondria have 0.01 and more.
    """

    model_config = STRICT

    semantic: float = Field(default=0.5, ge=0.0, le=1.0)
    seed_semantic: float = Field(default=0.9, ge=0.0, le=1.0)
    seed_boundary: float = Field(default=0.8, ge=0.0, le=1.0)
    grow_nm: float = Field(default=60.0, ge=0.0)
    minimum_um3: float = Field(default=0.001, ge=0.0)


class ModelSpec(PinnedSpec):
    """The content of NAME.json.

    Attributes:
        name, description: for people.
        architecture: a network of this package ("resunet-r", "resunet-h", "resunet-h-code"), a class in a file beside
            the specification ("my_net.py:MyNet"), or a whole network as the weights file ("torchscript", "exported").
        options: of the architecture, see `options`; stored with every default filled in.
        code_sha256: of the file with the class, checked before it is run.
        multiple: (z, y, x) that the size of a patch is a multiple of.
        voxel_size_nm: (z, y, x) that the model was trained at; finer volumes are averaged down to about it.
        patch, overlap: default patch of inference in voxels of the model.
        normalisation: from grey levels to network input.
        channels: what the output channels hold.
        weights: file beside the specification, in safetensors format (or that of the whole network).
        sha256: of that file, checked before it is read.
        thresholds: recommended post-processing.
    """

    architecture: str = "resunet-h"
    options: dict[str, Any] = Field(default_factory=dict)
    code_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    multiple: Triple = (1, 16, 16)
    voxel_size_nm: tuple[float, float, float]
    patch: Triple = (32, 128, 128)
    overlap: Triple = (8, 32, 32)
    normalisation: Normalisation = Normalisation()
    channels: tuple[Literal["semantic"], Literal["boundary"]] = ("semantic", "boundary")
    weights: str = Field(pattern=r"^[^/\\]+$")
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _options_fit(self) -> ModelSpec:
        try:
            complete = checked_options(self.architecture, self.options)
        except BadInput as error:
            raise ValueError(str(error)) from None
        self.options.clear()
        self.options.update(complete)
        if (class_in_file(self.architecture) is None) != (self.code_sha256 is None):
            raise ValueError("code_sha256: the sha256 of the file of a FILE.py:CLASS architecture, and of no other")
        endings = FILE_KINDS.get(self.architecture, (".safetensors",))
        if not self.weights.endswith(endings):
            raise ValueError(f"weights: the name of a file ending in {' or '.join(endings)}")
        return self

    @model_validator(mode="after")
    def _patch_fits(self) -> ModelSpec:
        if min(self.multiple) < 1 or min(self.patch) < 1 or not divides(self.multiple, self.patch):
            raise ValueError(f"patch: positive multiples of {list(self.multiple)} in z, y and x")
        if any(not 0 <= shared < size for shared, size in zip(self.overlap, self.patch, strict=True)):
            raise ValueError("overlap: at least 0 and less than the patch in each axis")
        return self

    @property
    def top_width(self) -> int:
        """Channels at full resolution, for estimates of memory; 32 where the architecture does not say."""
        widths = self.options.get("widths")
        return int(widths[0] if widths else self.options.get("top_width", 32))


def divides(multiple: Triple, size: Triple) -> bool:
    """Whether a size (z, y, x) is a multiple of `multiple` in each axis."""
    return vec3(size).is_multiple_of(multiple)


def shipped_names() -> list[str]:
    """Names of the models that come with the package."""
    return _SHELF.names()


def spec_path(name_or_path: str | Path) -> Path:
    """The JSON file of a shipped name, or of a path that ends in .json.

    Raises:
        BadInput: no such name or file.
    """
    return _SHELF.path(name_or_path)


def load_spec(name_or_path: str | Path) -> ModelSpec:
    """Read a specification; neither the weights nor torch are touched.

    Raises:
        BadInput: unknown name, a file that is no specification, or code beside it that is missing or another.
    """
    path = spec_path(name_or_path)
    content = path.read_bytes()
    try:
        spec = ModelSpec.model_validate_json(_newest_schema(content))
    except ValidationError as error:
        if _is_restorer(content):
            raise BadInput(
                str(path),
                "a model gives the probabilities of mitochondria",
                "this is a restorer, which gives grey levels",
                "It goes under denoise: --set denoise.model=PATH.json.",
            ) from None
        where, said = first_error(error)
        raise BadInput(
            f"{path}: {where}", "a model specification has the fields of ModelSpec and no others", said
        ) from error
    code = class_in_file(spec.architecture)
    if code is not None and spec.code_sha256 is not None:
        pinned_bytes(path.parent / code[0], spec.code_sha256, "code")
    return spec


def _is_restorer(content: bytes) -> bool:
    try:
        fields = json.loads(content)
    except ValueError:
        return False
    return isinstance(fields, dict) and "kind" in fields


def _newest_schema(content: bytes) -> bytes:
    """Version 0.1 had the three options of its only network beside the other fields."""
    try:
        fields = json.loads(content)
    except ValueError:
        return content
    if not isinstance(fields, dict) or "options" in fields:
        return content
    moved = {name: fields.pop(name) for name in ("widths", "norm", "padding") if name in fields}
    return json.dumps({**fields, "options": moved}).encode()
