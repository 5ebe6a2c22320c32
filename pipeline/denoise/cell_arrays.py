"""Arrays with one value a cell of a slice, and the table of what all slices are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.denoise.ops.slices import TILE, hold_tissue, slice_table
from pipeline.geometry import Vec3, float_vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.tables import BlockTables, write_table
from pipeline.store.volume import Volume

CELLS = 4 * TILE  # of a block along y and x: whole tiles, and a chunk of at most 1 MB
MOST_SLICES = 64
_READ = 2**26  # voxels that a block reads at most


def cell_grid(extent: Vec3, cell: Vec3) -> BlockGrid:
    """The blocks of a volume of ``extent`` voxels, in cells; also the chunks of the arrays of cells."""
    _, y, x = cell
    slices = min(MOST_SLICES, max(1, _READ // (CELLS * CELLS * y * x)))
    return BlockGrid(vec3(extent).ceil_div(cell), (slices, CELLS, CELLS))


def cell_volume(url: str, source: Volume, cell: Vec3) -> Volume:
    """The address of an array of one uint8 for each cell of ``source``, with the size and place of cells."""
    grid = cell_grid(source.shape, cell)
    size = source.voxel_size_nm or (1.0, 1.0, 1.0)
    coarse = float_vec3(s * c for s, c in zip(size, cell, strict=True))
    first = float_vec3(o + (c - 1) / 2 * s for o, c, s in zip(source.offset_nm, cell, size, strict=True))
    return Volume(url, "", "zarr", grid.extent, "uint8", grid.block, coarse, first)


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
