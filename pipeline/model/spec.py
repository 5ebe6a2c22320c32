"""What a trained model is: architecture, weights and their hash, normalisation, voxel size. Imports no torch."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import BadInput
from pipeline.model.normalisation import Normalisation

SHIPPED = Path(__file__).parent / "weights"
Triple = tuple[int, int, int]
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Thresholds(BaseModel):
    """Recommended post-processing, tuned with the model; probabilities 0..1.

    Attributes:
        semantic: mask = semantic > this.
        seed_semantic, seed_boundary: seed = semantic > seed_semantic and boundary < seed_boundary.
        grow_nm: distance by which seeds grow through the mask.
        minimum_um3: smaller objects are dropped. Whole mitochondria have 0.01 and more.
    """

    model_config = _STRICT

    semantic: float = Field(default=0.5, ge=0.0, le=1.0)
    seed_semantic: float = Field(default=0.9, ge=0.0, le=1.0)
    seed_boundary: float = Field(default=0.8, ge=0.0, le=1.0)
    grow_nm: float = Field(default=60.0, ge=0.0)
    minimum_um3: float = Field(default=0.001, ge=0.0)


class ModelSpec(BaseModel):
    """The content of NAME.json.

    Attributes:
        name, description: for people.
        architecture: which network of this package.
        widths, norm, padding: its options, see `resunet_h.ResUNetH`.
        voxel_size_nm: (z, y, x) that the model was trained at; finer volumes are averaged down to about it.
        patch, overlap: default patch of inference in voxels of the model; height and width multiples of 16.
        normalisation: from grey levels to network input.
        channels: what the output channels hold.
        weights: file beside the specification, in safetensors format.
        sha256: of that file, checked before it is read.
        thresholds: recommended post-processing.
    """

    model_config = _STRICT

    name: str
    description: str = ""
    architecture: Literal["resunet-h"] = "resunet-h"
    widths: tuple[int, int, int, int, int] = (28, 36, 48, 64, 80)
    norm: Literal["none", "batch", "instance"] = "none"
    padding: Literal["replicate", "zeros"] = "replicate"
    voxel_size_nm: tuple[float, float, float]
    patch: Triple = (32, 128, 128)
    overlap: Triple = (8, 32, 32)
    normalisation: Normalisation = Normalisation()
    channels: tuple[Literal["semantic"], Literal["boundary"]] = ("semantic", "boundary")
    weights: str = Field(pattern=r"^[^/\\]+\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _patch_fits(self) -> ModelSpec:
        if min(self.patch) < 1 or self.patch[1] % 16 or self.patch[2] % 16:
            raise ValueError("patch: height and width are positive multiples of 16")
        if any(not 0 <= shared < size for shared, size in zip(self.overlap, self.patch, strict=True)):
            raise ValueError("overlap: at least 0 and less than the patch in each axis")
        return self


def shipped_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def spec_path(name_or_path: str | Path) -> Path:
    """The JSON file of a shipped name, or of a path that ends in .json.

    Raises:
        BadInput: no such name or file.
    """
    text = str(name_or_path)
    path = Path(text) if text.endswith(".json") else SHIPPED / f"{text}.json"
    if path.is_file() and (text.endswith(".json") or text in shipped_names()):
        return path
    raise BadInput(
        f"model {text!r}",
        "a model is a shipped name or the path of an existing .json specification",
        "its weights are read from beside that file",
        f"Shipped: {', '.join(shipped_names()) or 'none'}.",
    )


def load_spec(name_or_path: str | Path) -> ModelSpec:
    """Read a specification; neither the weights nor torch are touched.

    Raises:
        BadInput: unknown name, or a file that is no specification.
    """
    path = spec_path(name_or_path)
    try:
        return ModelSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(
            f"{path}: {where}", "a model specification has the fields of ModelSpec and no others", str(first["msg"])
        ) from error


def checked_bytes(path: Path, spec: ModelSpec) -> bytes:
    """The content of a weights file, after its hash; parse these very bytes.

    Raises:
        BadInput: no such file, or another sha256 than the specification's.
    """
    if not path.is_file():
        raise BadInput(str(path), "the weights lie beside the specification", "there is no such file", "Copy both.")
    content = path.read_bytes()
    found = sha256(content).hexdigest()
    if found != spec.sha256:
        raise BadInput(
            f"{path}: sha256 {found}",
            f"the weights have the sha256 of the specification, {spec.sha256}",
            "other weights would silently give another segmentation",
            "Fetch specification and weights together again.",
        )
    return content
