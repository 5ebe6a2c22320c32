"""What a user sets of the export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings import PositiveVec3, Settings


class ExportSettings(Settings):
    """The Neuroglancer result."""

    chunk: PositiveVec3 = Field((64, 64, 64), description="Chunk of the precomputed layers, z y x.")
    layers: tuple[Literal["raw", "restored", "damage", "semantic", "boundary", "segmentation"], ...] = Field(
        ("raw", "restored", "damage", "semantic", "boundary", "segmentation"),
        description="Layers to write; restored and damage (255 where a voxel was replaced) where denoise is on.",
    )
