"""raw -> mean grey level and texture of every cell of every slice, uint8; and the levels of the slices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.formats import Array
from pipeline.geometry import Box, Vec3, float_vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.ops.inspect import UInt8, inspected
from pipeline.ops.predict import rounded
from pipeline.ops.slices import TILE, hold_tissue, slice_table, tile_levels
from pipeline.stage import BlockResult, Stopwatch, digest
from pipeline.statistics import GreyScale, require_finite
from pipeline.tables import BlockTables, write_table
from pipeline.volume import Volume

CELLS = 4 * TILE  # of a block along y and x: whole tiles, and a chunk of at most 1 MB
MOST_SLICES = 64
_READ = 2**26  # voxels that a block reads at most


def cell_grid(extent: Vec3, cell: Vec3) -> BlockGrid:
    """The blocks of a volume of ``extent`` voxels, in cells; also the chunks of the arrays of cells."""
    _, y, x = cell
    slices = min(MOST_SLICES, max(1, _READ // (CELLS * CELLS * y * x)))
    cells = vec3(-(-n // c) for n, c in zip(extent, cell, strict=True))
    return BlockGrid(cells, (slices, CELLS, CELLS))


def cell_volume(url: str, source: Volume, cell: Vec3) -> Volume:
    """The address of an array of one uint8 for each cell of ``source``, with the size and place of cells."""
    grid = cell_grid(source.shape, cell)
    size = source.voxel_size_nm or (1.0, 1.0, 1.0)
    coarse = float_vec3(s * c for s, c in zip(size, cell, strict=True))
    first = float_vec3(o + (c - 1) / 2 * s for o, c, s in zip(source.offset_nm, cell, size, strict=True))
    return Volume(url, "", "zarr", grid.extent, "uint8", grid.block, coarse, first)


@dataclass(frozen=True)
class InspectStage:
    """Two numbers for every cell; for every slice of a block level and spread of its tiles, and its cells with tissue.

    ``grid`` is in cells; ``count`` of a result is the number of cells that are not empty.
    """

    source: Volume
    source_fingerprint: str
    grey: GreyScale
    cell: Vec3
    mean: Volume
    texture: Volume
    levels: BlockTables
    grid: BlockGrid

    name = "inspect"
    version = 2

    @property
    def fingerprint(self) -> str:
        """Of the raw volume, its grey scale and the cell."""
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "source": self.source_fingerprint,
                "grey": self.grey.model_dump(),
                "cell": self.cell,
                "grid": asdict(self.grid),
            }
        )

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Inspect one block."""
        watch = Stopwatch()
        core = block.core
        start, stop = (vec3(n * c for n, c in zip(at, self.cell, strict=True)) for at in (core.start, core.stop))
        box = Box(start, stop).clipped(self.source.box)
        with watch("read"):
            raw = self.source.read(box)
        require_finite(self.source, box, raw)
        with watch("op"):
            mean, texture = inspected(grey_levels(self.grey, raw), self.cell)
            levels, tissue = tile_levels(mean), np.count_nonzero((mean > 0) & (texture > 0), axis=(1, 2))
        with watch("write"):
            self.mean.write(core, mean)
            self.texture.write(core, texture)
            self.levels.write(block.number, {"levels": levels, "tissue": tissue})
        return watch.result(block.number, int(np.count_nonzero(mean)))


def grey_levels(scale: GreyScale, raw: Array) -> UInt8:
    """Grey levels of stored values; zero, which is padding, stays zero, and nothing else becomes it."""
    # Slice by slice: float32 takes four times the memory of the grey levels, and more in between.
    return np.stack([_levels(scale, plane) for plane in raw])


def _levels(scale: GreyScale, raw: Array) -> UInt8:
    grey = scale.to_grey(raw)
    return grey if grey.dtype == np.uint8 else np.where(raw != 0, np.maximum(rounded(grey), 1), np.uint8(0))


def write_slice_table(levels: BlockTables, grid: BlockGrid, path: Path) -> None:
    """Gain and offset of every slice and whether it holds tissue, from all blocks, unless the table is there already.

    float32 (slices, 3), the last 1 or 0.
    """
    if path.exists():
        return
    tiles = np.full((grid.extent[0], *(-(-n // TILE) for n in grid.extent[1:]), 2), np.nan, np.float32)
    cells = np.zeros(grid.extent[0], np.int64)
    for block in grid:
        z, y, x = block.core.start
        table = levels.read(block.number)
        found = table["levels"]
        cells[z : z + len(found)] += table["tissue"]
        tiles[z : z + len(found), y // TILE :, x // TILE :][:, : found.shape[1], : found.shape[2]] = found
    write_table(path, np.column_stack([slice_table(tiles), hold_tissue(cells)]).astype(np.float32))
