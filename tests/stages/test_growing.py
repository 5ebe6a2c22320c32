"""Seeds, growth, holes and selection through the stages, block by block: what the whole volume in memory gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_path import LabelRun, instances_of, store, stored_maps
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.engine.blocks import chunk_shape
from pipeline.engine.directory import RunDirectory
from pipeline.engine.executor import PicklingExecutor
from pipeline.engine.stage import run_block
from pipeline.engine.step import run_step
from pipeline.geometry import Vec3, float_vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import open_mask
from pipeline.instances.labelling import Labelling
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.instances.stages.grow import GrowStage
from pipeline.instances.steps import instance_steps
from pipeline.instances.stored.collars import are_worth_it

SHAPE = (14, 37, 45)
BLOCK = (6, 19, 23)
SIZE = (30.0, 8.0, 8.0)
LEVELS = {"seed_above": 0.75, "boundary_below": 0.8, "mask_above": 0.45}
KINDS: dict[str, dict[str, Any]] = {
    "mask": {"grow": "mask", "grow_nm": 46.0},
    "mask in plane": {"grow": "mask", "grow_nm": 24.0},
    "dilate": {"grow": "dilate"},
    "watershed": {"grow": "watershed", "watershed_halo_nm": 250.0},
    "holes": {"grow": "none", "fill_holes_nm": 60.0},
    "mask and holes": {"grow": "mask", "grow_nm": 16.0, "fill_holes_nm": 60.0, "connectivity": 26},
    "watershed and holes": {"grow": "watershed", "fill_holes_nm": 30.0, "minimum_seed_voxels": 5},
    "all": {"grow": "mask", "grow_nm": 30.0, "fill_holes_nm": 30.0, "join_gap": 1, "drop_border": True},
}


def smooth(seed: int, sigma: float) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (sigma / 2, sigma, sigma))
    scaled: NDArray[np.float64] = (noise - noise.min()) / np.ptp(noise)
    return scaled


def some_maps() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Objects of all sizes with holes of one voxel and of many, and with a bad slice."""
    semantic = np.clip(smooth(1, 2.0) * 420 - 40, 0, 255).astype(np.uint8)
    semantic[np.random.default_rng(2).random(SHAPE) < 0.02] = 0
    semantic[6] //= 2
    return semantic, (smooth(3, 1.0) * 255).astype(np.uint8)


def run_of(folder: Path, block: Vec3, chosen: dict[str, Any]) -> LabelRun:
    return LabelRun(folder, stored_maps(folder / "maps", *some_maps(), SIZE), BlockGrid(SHAPE, block), chosen)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["from chunks", "from collars"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_blocks_give_the_instances_of_the_whole(
    kind: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.instances.stored.collars.LARGEST_SHARE", share)
    chosen = {**LEVELS, "minimum_voxels": 4, **KINDS[kind]}
    expected = whole_instances(*some_maps(), instance_plan(InstanceSettings.model_validate(chosen), SIZE, None))
    run = run_of(tmp_path, BLOCK, chosen)
    run.go_on(PicklingExecutor())
    assert (grow_stage(run).collars is not None) == (share == 1.0)
    assert expected.max() > 3
    np.testing.assert_array_equal(run.segmentation, expected)


def grow_stage(run: LabelRun) -> GrowStage:
    (stage,) = (stage for step in instances_of(run)[0] for stage in step.stages if isinstance(stage, GrowStage))
    return stage


def test_every_parameter_of_the_growth_changes_its_fingerprint_and_no_other(tmp_path: Path) -> None:
    base = {"grow": "mask", "grow_nm": 40.0, "fill_holes_nm": 60.0}
    made = run_of(tmp_path, BLOCK, base)

    def fingerprint(**changed: Any) -> str:
        return grow_stage(LabelRun(tmp_path, made.maps, made.grid, {**base, **changed})).fingerprint

    changes: list[dict[str, Any]] = [
        {},
        {"grow_nm": 41.0},
        {"mask_above": 0.3},
        {"fill_holes_nm": 30.0},
        {"grow": "dilate"},
        {"grow": "none"},
        {"grow": "watershed"},
        {"grow": "watershed", "watershed_halo_nm": 100.0},
        {"minimum_seed_voxels": 3},
    ]
    assert len({fingerprint(**changed) for changed in changes}) == len(changes)
    later: list[dict[str, Any]] = [
        {"minimum_voxels": 99},
        {"drop_border": True},
        {"join_gap": 1},
        {"watershed_halo_nm": 100.0},
    ]
    assert {fingerprint(**changed) for changed in later} == {fingerprint()}


def test_the_halo_is_that_of_the_growth_and_that_of_the_holes(tmp_path: Path) -> None:
    halos: dict[Vec3, dict[str, Any]] = {
        (1, 5, 5): {"grow": "mask", "grow_nm": 40.0},
        (3, 12, 12): {"grow": "mask", "grow_nm": 40.0, "fill_holes_nm": 60.0},
        (2, 10, 10): {"grow": "dilate", "fill_holes_nm": 60.0},
        (8, 31, 31): {"grow": "watershed"},
        (2, 7, 7): {"grow": "none", "fill_holes_nm": 60.0},
        (0, 3, 3): {"grow": "dilate", "fill_holes_nm": 20.0},  # less than a voxel in z: no hole fits
    }
    made = run_of(tmp_path, BLOCK, {})
    for halo, chosen in halos.items():
        assert grow_stage(LabelRun(tmp_path, made.maps, made.grid, chosen)).halo == halo


@pytest.mark.parametrize("grow", ["mask", "none"])
def test_a_coarse_tissue_mask_drops_what_lies_outside_it(grow: str, tmp_path: Path) -> None:
    coarse = np.random.default_rng(5).integers(0, 2, [-(-n // 4) for n in SHAPE], dtype=np.uint8)
    z, y, x = SHAPE
    fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[:z, :y, :x] > 0
    chosen = InstanceSettings.model_validate({**LEVELS, "grow": grow, "grow_nm": 40.0, "minimum_voxels": 4})
    plan = instance_plan(chosen, SIZE, None)
    maps = stored_maps(tmp_path / "maps", *some_maps(), SIZE)
    store(tmp_path / "tissue", coarse, float_vec3(4 * size for size in SIZE))
    tissue = open_mask(str(tmp_path / "tissue"), maps.semantic, "the tissue mask")
    grid, directory = BlockGrid(SHAPE, BLOCK), RunDirectory(tmp_path / "run")
    steps, segmentation, _ = instance_steps(Labelling(directory, grid, chunk_shape(BLOCK), plan, tissue), maps)
    for step in steps:
        run_step(directory, step, PicklingExecutor())
    expected = whole_instances(*some_maps(), plan, fine)
    assert 1 < expected.max() < whole_instances(*some_maps(), plan).max()
    np.testing.assert_array_equal(segmentation.read(segmentation.box), expected)


def test_collars_are_stored_where_they_are_a_small_part_of_a_block() -> None:
    grid = BlockGrid((256, 256, 256), (128, 128, 128))
    assert are_worth_it(grid, (6, 6, 6))
    assert are_worth_it(grid, (0, 3, 3))
    assert not are_worth_it(grid, (25, 25, 25))
    assert not are_worth_it(grid, (70, 0, 0))
    assert not are_worth_it(grid, (0, 0, 0))
    assert not are_worth_it(BlockGrid((128, 128, 128), (128, 128, 128)), (6, 6, 6))  # nobody would read them


def test_growth_refuses_a_block_whose_neighbour_has_lost_its_collar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.instances.stored.collars.LARGEST_SHARE", 1.0)
    run = run_of(tmp_path, BLOCK, {**LEVELS, "grow": "mask", "grow_nm": 16.0})
    run.go_on()
    stage = grow_stage(run)
    (stored,) = (run.root / "tables" / "label-collars").rglob("2.arrays")
    stored.unlink()
    assert "2.arrays" in str(run_block(stage, 0).error)
    assert run_block(stage, len(stage.grid) - 1).error is None  # no neighbour of that one
