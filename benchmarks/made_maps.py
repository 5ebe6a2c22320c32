"""Made probability maps, about a tenth of them seeds: stored ones, and one that is endless and not stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.blocks import chunk_shape
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.image.maps import Maps
from pipeline.image.resample import coarse_extent, interpolate
from pipeline.instances.ops.label import seeds
from pipeline.instances.plan import InstancePlan
from pipeline.store.volume import Volume

VOXEL_SIZE_NM = (10.0, 10.0, 10.0)
# Blobs: white noise smoothed on a grid of an eighth, then interpolated; some 40 voxels across, as mitochondria are.
COARSE, SMOOTH, ABOVE = (8, 8, 8), 1.7, 0.83
STEEPNESS = 300.0

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Made:
    """The made input."""

    maps: Maps
    grid: BlockGrid


def made_maps(folder: Path, shape: Vec3, block: Vec3) -> Made:
    """Semantic and boundary maps in ``folder``; kept where they are there already."""
    grid = BlockGrid(shape, block)
    like = Volume("", "", "zarr", shape, "uint8", block, VOXEL_SIZE_NM)
    semantic, boundary = (
        stored_volume(str(folder / name), grid, "uint8", like, chunk_shape(block)) for name in ("semantic", "boundary")
    )
    done = folder / "made"
    if not done.exists():
        create_if_missing(semantic, grid)
        create_if_missing(boundary, grid)
        coarse = _coarse(shape)
        for each in grid:
            for volume, values in zip((semantic, boundary), _levels(coarse, each.core), strict=True):
                volume.write(each.core, values)
        done.touch()
    return Made(Maps(semantic, boundary, "made"), grid)


def all_seeds(maps: Maps, plan: InstancePlan, grid: BlockGrid) -> npt.NDArray[np.bool_]:
    """The seeds of the whole volume, in memory."""
    found = np.empty(grid.extent, np.bool_)
    for block in grid:
        semantic, boundary = maps.semantic.read(block.core), maps.boundary.read(block.core)
        found[block.core.slices()] = seeds(semantic, boundary, plan.seed_above, plan.boundary_below)
    return found


def mirrored_maps(folder: Path, shape: Vec3, tile: Vec3) -> Maps:
    """Maps of any shape without storing them: a tile in ``folder``, mirrored at its faces again and again.

    Objects at a face go on behind it, so a volume of many tiles has as many seeds and crossings a voxel as one tile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{'x'.join(map(str, tile))}.npy" for name in ("semantic", "boundary")]
    if not all(path.exists() for path in paths):
        for path, values in zip(paths, _levels(_coarse(tile), Box.of_shape(tile)), strict=True):
            np.save(path, values)
    semantic, boundary = (MirroredTile(str(path), shape, tile) for path in paths)
    # Read by the label stage alone, through ``read`` and these attributes of a Volume.
    return Maps(semantic, boundary, "mirrored")  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class MirroredTile:
    """What a ``Volume`` is to those who read it, uint8, endless: voxel i of an axis is that of the mirrored tile."""

    url: str
    shape: Vec3
    tile: Vec3
    path: str = ""
    format: str = "made"
    dtype: str = "uint8"
    chunks: Vec3 = vec3((128, 128, 128))  # noqa: RUF009  immutable
    voxel_size_nm: FloatVec3 = VOXEL_SIZE_NM
    offset_nm: FloatVec3 = (0.0, 0.0, 0.0)

    @property
    def box(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape)

    def read(self, box: Box) -> UInt8:
        """The voxels of ``box``, inside the volume."""
        stored = _tile(self.url)
        found = np.empty(box.shape, np.uint8)
        axes = [list(_pieces(low, high, n)) for low, high, n in zip(box.start, box.stop, self.tile, strict=True)]
        for pieces in product(*axes):
            target, source = zip(*pieces, strict=True)
            found[target] = stored[source]
        return found


@lru_cache(maxsize=4)
def _tile(path: str) -> UInt8:
    """The tile, mapped: all processes share its pages."""
    mapped: UInt8 = np.load(path, mmap_mode="r")
    return mapped


def _pieces(start: int, stop: int, length: int) -> Iterator[tuple[slice, slice]]:
    """For each tile that ``start .. stop`` of an axis meets: where in the box, and the part of the tile, in order."""
    at = start
    while at < stop:
        number, low = divmod(at, length)
        end = min(stop, (number + 1) * length)
        high = low + end - at
        part = slice(low, high) if number % 2 == 0 else _backwards(length - high, length - low)
        yield slice(at - start, end - start), part
        at = end


def _backwards(low: int, high: int) -> slice:
    return slice(high - 1, low - 1 if low else None, -1)


def _coarse(shape: Vec3) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(0).standard_normal(coarse_extent(shape, COARSE), np.float32)
    coarse = ndimage.gaussian_filter(noise, SMOOTH)
    steep: npt.NDArray[np.float32] = (coarse - np.quantile(coarse, ABOVE)) * np.float32(STEEPNESS / coarse.std())
    return steep


def _levels(coarse: npt.NDArray[np.float32], box: Box) -> tuple[UInt8, UInt8]:
    """Semantic and boundary levels in a box."""
    depth = interpolate(coarse, Box.of_shape(vec3(coarse.shape)), box, COARSE)
    return np.clip(128 + depth, 0, 255).astype(np.uint8), np.clip(255 - np.abs(depth), 0, 255).astype(np.uint8)
