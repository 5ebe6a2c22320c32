"""A synthetic EM-like volume with known mitochondria, of any size, made box by box from a seed.

Nothing is stored: every voxel is a function of the seed and its place, so a box of a petavoxel costs what its own
voxels cost, and it has the same bits whatever box it is asked in. Structures have nanometre sizes, and the course of
the mitochondria does not depend on the voxel size (fine texture does). It holds what a mitochondria pipeline can get
wrong: instances that touch, branch and cross blocks.

Looks and statistics follow lucchi++ at 10 nm. On one core raw values are made at 3 to 7 MVoxel/s at 10 nm a voxel (2 to
3 at 30 nm, where a voxel holds more tissue), instances at 10 to 30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Triple, Vec3, float_vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.phantom.damage import Damage
from pipeline.phantom.image import grey
from pipeline.phantom.mitochondria import ids
from pipeline.phantom.scene import Scene, scene
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume

# Work is done in parts of this shape: temporary arrays stay near the cache and memory near that of the result.
_PART = vec3((64, 128, 128))


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume of ``shape`` voxels (z, y, x); equal fields give equal bits everywhere.

    The tissue depends on seed and voxel size alone: a larger phantom continues a smaller one. Ids depend on the shape
    as well. Every instance that the border does not cut is one component, even 6-connected (seen to hold for some
    4,000 of them, at voxels up to 40 nm).

    Raises:
        BadInput: ``shape`` is not three positive integers, or ``voxel_size_nm`` not three lengths from 1 to 100 nm.
    """

    shape: Vec3
    seed: int = 0
    voxel_size_nm: FloatVec3 = (10.0, 10.0, 10.0)

    def __post_init__(self) -> None:
        _require(len(self.shape) == 3 and all(int(n) == n and n > 0 for n in self.shape), "shape", self.shape)
        _require(
            len(self.voxel_size_nm) == 3 and all(1 <= size <= 100 for size in self.voxel_size_nm),
            "voxel size",
            self.voxel_size_nm,
            "lengths from 1 to 100 nm",
        )
        object.__setattr__(self, "shape", vec3(self.shape))
        object.__setattr__(self, "voxel_size_nm", float_vec3(self.voxel_size_nm))

    @property
    def box(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape)

    def raw(self, box: Box) -> NDArray[np.uint8]:
        """Grey values (z, y, x) of ``box``, uint8; zero outside the volume."""
        return self.both(box)[0]

    def instances(self, box: Box) -> NDArray[np.uint64]:
        """Ids (z, y, x) of ``box``, uint64, 0 the background and outside the volume; unique and stable."""
        out = np.zeros(box.shape, np.uint64)
        for part in _parts(box.clipped(self.box)):
            out[part.slices(box.start)] = self._labels(scene(self.seed, self.voxel_size_nm, part))
        return out

    def both(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Grey values and ids of ``box`` for little more than the price of the first."""
        image, labels = np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.uint64)
        for part in _parts(box.clipped(self.box)):
            here = scene(self.seed, self.voxel_size_nm, part)
            image[part.slices(box.start)] = grey(here)
            labels[part.slices(box.start)] = self._labels(here)
        return image, labels

    def _labels(self, here: Scene) -> NDArray[np.uint64]:
        extent = np.array(self.shape) * np.array(self.voxel_size_nm)
        table = np.append(ids(here.found, extent), np.uint64(0))  # index -1 is the background
        return table[np.where(here.surface() > 0, here.owner, np.int16(-1))]


def write_phantom(
    output_url: str,
    phantom: Phantom,
    block: Triple | None = None,
    progress: Callable[[int, int], None] | None = None,
    damage: Damage | None = None,
) -> None:
    """Write ``OUT/raw`` (uint8) and ``OUT/instances`` (uint64) as OME-Zarr 0.5, block by block.

    With ``damage``, raw is the damaged image, ``OUT/clean`` the image without it, and ``OUT/damage`` (uint8) tells
    what was damaged; see ``Damage.planted``.

    Args:
        output_url: local path or URL of the folder; arrays already there are replaced.
        block: voxels z, y, x made at once, a multiple of the chunks of 64 (default 128, 256, 256).
        progress: called with (blocks done, blocks in all) after each block.
        damage: what is planted; of the phantom's shape and voxel size.

    Raises:
        BadInput: ``block`` is not three positive multiples of 64.
    """
    block = (128, 256, 256) if block is None else block
    chunks = (64, 64, 64)
    _require(len(block) == 3 and all(b > 0 and b % 64 == 0 for b in block), "block", block, "positive multiples of 64")
    grid = BlockGrid(phantom.shape, block)
    root = output_url.rstrip("/")
    names = ("raw", "instances") if damage is None else ("raw", "instances", "clean", "damage")
    for name in names:
        dtype = "uint64" if name == "instances" else "uint8"
        ome_zarr.create(f"{root}/{name}", phantom.shape, grid.padded_extent, chunks, dtype, phantom.voxel_size_nm)
    volumes = [open_volume(f"{root}/{name}") for name in names]
    for done, part in enumerate(grid, 1):
        image, labels = phantom.both(part.core)
        made: tuple[NDArray[np.uint8] | NDArray[np.uint64], ...] = (image, labels)
        if damage is not None:
            damaged, truth = damage.planted(image, part.core, phantom.raw)
            made = (damaged, labels, image, truth)
        for volume, values in zip(volumes, made, strict=True):
            volume.write(part.core, values)
        if progress is not None:
            progress(done, len(grid))


def _parts(box: Box) -> Iterator[Box]:
    for block in BlockGrid(box.shape, _PART):
        yield block.core.shifted(box.start)


def _require(holds: bool, name: str, given: object, rule: str = "positive whole numbers") -> None:
    if not holds:
        raise BadInput(
            f"phantom {name} {given}",
            f"it must be three {rule} (z, y, x)",
            "that is all a phantom can be made with",
            "For example 256, 256, 256." if name != "voxel size" else "For example 10, 10, 10.",
        )
