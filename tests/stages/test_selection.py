"""Which whole instances stay, and which pieces are one: through all stages, block by block, as in the whole volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_path import LabelRun, stored_maps
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.engine.executor import PicklingExecutor
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import CoarseMask, open_mask
from pipeline.instances.ops.whole import whole_instances
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume

SHAPE = (16, 34, 41)
FACTOR = (2, 4, 8)
SIZE = (10.0, 10.0, 10.0)
BASE: dict[str, Any] = {"seed_above": 0.6, "boundary_below": 1.0, "grow": "none", "minimum_voxels": 1}
CHOICES: dict[str, dict[str, Any]] = {
    "joined": {"join_gap": 2, "join_overlap": 0.3},
    "joined and of a size": {"join_gap": 2, "minimum_voxels": 60},
    "off the border": {"drop_border": True},
    "joined, then off the border": {"join_gap": 1, "drop_border": True},
    "in the tissue": {"tissue_fraction": 0.5},
    "grown, joined, in the tissue": {"grow": "mask", "mask_above": 0.5, "grow_nm": 20.0, "join_gap": 1},
}


def some_maps() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Objects of all sizes; slices 5, 10 and 11 are blank."""
    noise = ndimage.gaussian_filter(np.random.default_rng(8).standard_normal(SHAPE), (3.0, 1.6, 1.6))
    semantic = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    semantic[[5, 10, 11]] = 0
    return semantic, np.zeros(SHAPE, np.uint8)


def tissue_mask(folder: Path) -> CoarseMask:
    """Coarse blotches of tissue."""
    z, y, x = (-(-n // f) for n, f in zip(SHAPE, FACTOR, strict=True))
    values = np.random.default_rng(9).integers(0, 2, (z, y, x), dtype=np.uint8)
    ome_zarr.create(str(folder / "tissue"), (z, y, x), (z, y, x), (z, y, x), "uint8", None)
    stored = open_volume(str(folder / "tissue"))
    stored.write(stored.box, values)
    opened = open_mask(str(folder / "tissue"), stored_maps(folder / "like", *some_maps(), SIZE).semantic, "the mask")
    assert opened.factor == FACTOR
    return opened


@pytest.mark.parametrize("block", [(6, 17, 20), (3, 40, 41)])
@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_blocks_select_the_instances_of_the_whole(choice: str, block: Vec3, tmp_path: Path) -> None:
    mask = tissue_mask(tmp_path) if "tissue" in choice else None
    maps = stored_maps(tmp_path / "maps", *some_maps(), SIZE)
    run = LabelRun(tmp_path / "run", maps, BlockGrid(SHAPE, block), {**BASE, **CHOICES[choice]}, tissue=mask)
    run.go_on(PicklingExecutor())
    fine = None if mask is None else mask.read(maps.semantic.box)
    expected = whole_instances(*some_maps(), run.plan, fine)
    np.testing.assert_array_equal(run.segmentation, expected)
    assert 3 < expected.max() < whole_instances(*some_maps(), LabelRun(tmp_path, maps, run.grid, BASE).plan).max()


def test_another_share_gap_or_limit_never_meets_the_results_of_the_one_before(tmp_path: Path) -> None:
    maps = stored_maps(tmp_path / "maps", *some_maps(), SIZE)
    seen = set()
    for chosen in ({}, {"join_gap": 1}, {"join_gap": 2}, {"join_gap": 2, "join_overlap": 0.9}, {"drop_border": True}):
        run = LabelRun(tmp_path / "run", maps, BlockGrid(SHAPE, (6, 17, 20)), {**BASE, **chosen})
        seen.add(run.steps[-1].stages[0].fingerprint)
    assert len(seen) == 5
