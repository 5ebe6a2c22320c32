"""Every way of making instances, in any blocks: the ids and the table are those of the whole volume in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from label_path import LabelRun, Shuffled, store, stored_maps
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.engine.executor import SerialExecutor
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import CoarseMask
from pipeline.instances.labelling import MERGE_AT_ONCE
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings

SHAPE = (14, 28, 30)
SIZE: FloatVec3 = (30.0, 8.0, 9.0)
BLOCKS = ((5, 11, 13), (14, 7, 30), (3, 28, 15), (6, 9, 40), (4, 50, 10))
SEEDS = (7, 8, 10, 16, 18, 19, 21, 30, 32)  # volumes on which every option has something to do
Map = NDArray[np.uint8]


def objects(seed: int) -> Map:
    """Ragged bright ellipsoids that touch, with dark holes inside, and a slice that is nearly gone."""
    random, at = np.random.default_rng(seed), np.indices(SHAPE)
    values = 60 + 25 * random.standard_normal(SHAPE)
    for _ in range(22):
        centre, radius = random.random(3) * SHAPE, random.uniform((1.2, 2, 2), (3, 4.5, 4.5))
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(at, centre, radius, strict=True))
        inside = distance < 1
        rough = 15 * random.standard_normal(int(inside.sum()))
        values[inside] = random.uniform(150, 240) - 60 * distance[inside] + rough
        values[distance < random.uniform(0, 0.25)] = 20
    values[random.integers(3, SHAPE[0] - 3)] -= 150 * (random.random(SHAPE[1:]) < 0.97)
    return np.clip(values, 0, 255).astype(np.uint8)


def edges(seed: int) -> Map:
    """Boundaries that cut through objects here and there."""
    random = np.random.default_rng(seed)
    waves = np.abs(ndimage.gaussian_filter(random.standard_normal(SHAPE), 0.7))
    return np.clip(40 + 1000 * waves * random.random(SHAPE), 0, 255).astype(np.uint8)


EVERYTHING = {
    "seed_above": 0.5,
    "boundary_below": 0.8,
    "mask_above": 0.45,
    "grow": "mask",
    "grow_nm": 35.5,
    "minimum_seed_voxels": 4,
    "minimum_voxels": 25,
    "fill_holes_nm": 61.0,
    "drop_border": True,
    "join_gap": 2,
}


def made(folder: Path, options: dict[str, Any], maps: tuple[Map, Map], tissue: Map | None, at_once: int) -> Any:
    stored = stored_maps(folder / "maps", *maps, SIZE)
    factor = (2, 4, 4)
    mask = None if tissue is None else CoarseMask(store(folder / "tissue", tissue), SHAPE, factor)

    def run(name: str, block: Vec3) -> LabelRun:
        return LabelRun(folder / name, stored, BlockGrid(SHAPE, block), options, at_once, mask)

    return run


def expected(run: LabelRun, maps: tuple[Map, Map], tissue: Map | None) -> NDArray[np.uint64]:
    fine = None
    if tissue is not None:
        fine = tissue.repeat(2, 0).repeat(4, 1).repeat(4, 2)[tuple(map(slice, SHAPE))] != 0
    return whole_instances(*maps, run.plan, fine)


def require_whole(folder: Path, options: dict[str, Any], block: Vec3, seed: int, tissue: bool, at_once: int) -> int:
    maps = objects(seed), edges(seed)
    mask = np.random.default_rng(seed).integers(0, 2, (7, 7, 8), dtype=np.uint8) if tissue else None
    run = made(folder, options, maps, mask, at_once)
    cut, uncut = run("cut", block), run("uncut", SHAPE)
    cut.go_on(Shuffled(seed))
    uncut.go_on(SerialExecutor())
    ids = expected(cut, maps, mask)
    np.testing.assert_array_equal(uncut.segmentation, ids)
    np.testing.assert_array_equal(cut.segmentation, ids)
    assert cut.table.equals(uncut.table)
    assert cut.table["voxels"].to_pylist() == np.bincount(ids.reshape(-1).astype(np.int64))[1:].tolist()
    return int(ids.max())


def drawn(random: np.random.Generator) -> dict[str, Any]:
    """Options of any combination; half of those that may be left out are."""
    always = {
        "preset": ["default", "default", "published", "bc_watershed"],
        "grow": ["none", "dilate", "mask", "mask", "watershed"],
        "minimum_voxels": [0, 1, 5, 20],
        "mask_above": [0.45],
        "watershed_halo_nm": [600.0],  # as far as the volume reaches: nothing is cut
        "grow_nm": [8.0, 16.5, 30.0, 35.5, 61.0],
    }
    at_times = {
        "seed_above": [0.5, 0.7],
        "boundary_below": [0.5, 0.8, 1.0],
        "connectivity": [6, 18, 26],
        "minimum_seed_voxels": [0, 1, 2, 6],
        "fill_holes_nm": [30.0, 61.0],
        "drop_border": [True],
        "tissue_fraction": [0.0, 0.3, 1.0],
        "join_gap": [1, 2, 3],
        "join_overlap": [0.0, 0.25, 1.0],
    }
    chosen = {**always, **{name: of for name, of in at_times.items() if random.random() < 0.5}}
    return {name: of[random.integers(len(of))] for name, of in chosen.items()}


@pytest.mark.parametrize("option", [*EVERYTHING, "tissue"])
def test_every_option_has_something_to_do_on_these_volumes(option: str) -> None:
    plan = instance_plan(InstanceSettings.model_validate(EVERYTHING), SIZE, None)
    off = {
        **{"seed_above": 100, "boundary_below": 255, "minimum_seed_voxels": 1, "minimum_voxels": 1, "join_gap": 0},
        **{"mask_above": 90, "grow": "none", "grow_nm": 8.0, "fill_holes_nm": (0, 0, 0), "drop_border": False},
    }
    name = option.removesuffix("_nm") if option == "fill_holes_nm" else option
    without = plan if option == "tissue" else replace(plan, **{name: off[option]})
    tissue = np.arange(SHAPE[2]) < np.full(SHAPE, 15) if option == "tissue" else None
    differ = 0
    for seed in SEEDS:
        maps = objects(seed), edges(seed)
        differ += not np.array_equal(whole_instances(*maps, plan, tissue), whole_instances(*maps, without))
    assert differ > len(SEEDS) // 2


def test_everything_at_once_in_two_very_different_grids(tmp_path: Path) -> None:
    for number, block in enumerate(((3, 28, 7), (14, 9, 30))):
        assert require_whole(tmp_path / str(number), EVERYTHING, block, SEEDS[2], tissue=True, at_once=0) > 1


@pytest.mark.parametrize("number", range(12))
def test_any_options_in_any_blocks_give_what_the_whole_volume_gives(number: int, tmp_path: Path) -> None:
    random = np.random.default_rng(number)
    options, seed, block = drawn(random), int(random.choice(SEEDS)), BLOCKS[random.integers(len(BLOCKS))]
    at_once = int(random.choice([0, 10, MERGE_AT_ONCE]))
    require_whole(tmp_path, options, block, seed, tissue=random.random() < 0.4, at_once=at_once)


@pytest.mark.parametrize(
    "options",
    [
        {"grow": "mask", "grow_nm": 16.5},
        {"grow": "mask", "grow_nm": 61.0},
        {"grow": "dilate"},
        {"grow": "mask", "grow_nm": 35.5, "fill_holes_nm": 31.0},
        {"grow": "none", "fill_holes_nm": 61.0},
    ],
)
def test_collars_of_any_thickness_give_what_the_chunks_give(options: dict[str, Any], tmp_path: Path) -> None:
    wanted = {"seed_above": 0.5, "boundary_below": 0.8, "mask_above": 0.3, "minimum_voxels": 1, **options}
    with patch("pipeline.instances.stored.collars.LARGEST_SHARE", 1.0):  # here they do not pay
        require_whole(tmp_path, wanted, (5, 9, 11), SEEDS[4], tissue=False, at_once=MERGE_AT_ONCE)
    assert (tmp_path / "cut" / "tables" / "label-collars").is_dir()


def test_surfaces_over_the_corners_of_blocks_are_measured(tmp_path: Path) -> None:
    options = {"seed_above": 0.2, "boundary_below": 1.0, "grow": "none", "minimum_voxels": 1}
    assert require_whole(tmp_path, options, (5, 6, 7), SEEDS[0], tissue=False, at_once=MERGE_AT_ONCE) > 5


def test_pieces_are_joined_across_a_bad_slice_where_every_slice_is_a_block(tmp_path: Path) -> None:
    options = {"seed_above": 0.5, "boundary_below": 1.0, "grow": "none", "minimum_voxels": 1, "join_gap": 1}
    require_whole(tmp_path, options, (1, 28, 30), SEEDS[1], tissue=False, at_once=MERGE_AT_ONCE)
    plan = instance_plan(InstanceSettings.model_validate(options), SIZE, None)
    maps = objects(SEEDS[1]), edges(SEEDS[1])
    joined, apart = whole_instances(*maps, plan), whole_instances(*maps, replace(plan, join_gap=0))
    assert joined.max() < apart.max()
