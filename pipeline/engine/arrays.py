"""The arrays of a run: where they lie, and creating those that are not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats import ome_zarr
from pipeline.store.formats.writer import Writer
from pipeline.store.volume import Volume


def stored_volume(url: str, grid: BlockGrid, dtype: str, like: Volume, chunks: Vec3) -> Volume:
    """The address of an intermediate array over ``grid``, with the voxel size and offset of ``like``."""
    return Volume(url, "", "zarr", grid.extent, dtype, chunks, like.voxel_size_nm, like.offset_nm)


def create_if_missing(volume: Volume, grid: BlockGrid, stage: str = "") -> None:
    """Create an intermediate array unless it is there whole; its metadata are written last by the library.

    Args:
        volume: where, its dtype, chunks and geometry.
        grid: the blocks in which it is written.
        stage: the name of the stage that writes it, which it then states of itself; empty where none does.
    """
    if not is_whole_json(Path(volume.url) / "0" / "zarr.json"):
        ome_zarr.create(
            volume.url,
            grid.extent,
            grid.padded_extent,
            volume.chunks,
            volume.dtype,
            volume.voxel_size_nm,
            volume.offset_nm,
            Writer(stage, Path(volume.url).name, grid) if stage else None,
        )


def create_arrays(volumes: Sequence[Volume], grid: BlockGrid, stage: str = "") -> None:
    """Create each intermediate array of a stage that is not there; arguments as those of ``create_if_missing``."""
    for volume in volumes:
        create_if_missing(volume, grid, stage)


def is_whole_json(path: Path) -> bool:
    """False for a file that is not there, and for one that a full disk or a kill has left empty or torn."""
    try:
        json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True
