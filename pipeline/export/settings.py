"""What a user sets of the export."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.settings import PositiveTriple, Settings

LayerName = Literal["raw", "restored", "replaced", "semantic", "boundary", "segmentation"]
OLD_NAMES = {"replaced": "damage"}
"""Names that layers had in earlier versions; runs made then keep them."""


def _new_names(value: Any) -> Any:
    """Names of layers as they are today."""
    new = {old: name for name, old in OLD_NAMES.items()}
    return [new.get(name, name) for name in value] if isinstance(value, list | tuple) else value


_Layers = Annotated[tuple[LayerName, ...], BeforeValidator(_new_names)]


class ExportSettings(Settings):
    """The Neuroglancer result."""

    chunk: PositiveTriple = Field((64, 64, 64), description="Chunk of the precomputed layers, z y x.")
    layers: _Layers = Field(
        ("raw", "restored", "replaced", "semantic", "boundary", "segmentation"),
        description="Layers to write; restored and replaced (255 where a voxel was replaced) where denoise is on.",
    )
