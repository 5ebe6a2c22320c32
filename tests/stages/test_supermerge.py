"""Super-blocks, level by level, give the ids that one merge of everything gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.directory import RunDirectory
from pipeline.engine.executor import PicklingExecutor
from pipeline.engine.status import status_of
from pipeline.engine.step import run_step
from pipeline.grid import BlockGrid
from pipeline.image.maps import Maps
from pipeline.instances.labelling import Labelling
from pipeline.instances.ops.supermerge import Nodes, super_grids, union
from pipeline.instances.plan import InstancePlan
from pipeline.instances.stages.supermerge import SuperMergeStage, super_side
from pipeline.instances.steps import instance_steps
from pipeline.store.volume import Volume

SHAPE, BLOCK = (12, 20, 26), (4, 5, 6)


def labelling(folder: Path, found: NDArray[np.bool_], plan: InstancePlan, at_once: int) -> tuple[Labelling, Maps]:
    grid = BlockGrid(SHAPE, BLOCK)
    like = Volume("", "", "zarr", SHAPE, "uint8", BLOCK, (10.0, 10.0, 10.0))
    maps = [stored_volume(str(folder / name), grid, "uint8", like, BLOCK) for name in ("semantic", "boundary")]
    for volume, values in zip(maps, (found, ~found), strict=True):
        create_if_missing(volume, grid)
        volume.write(volume.box, values.astype(np.uint8) * 255)
    directory = RunDirectory(folder / f"run-{at_once}")
    return Labelling(directory, grid, BLOCK, plan, merge_at_once=at_once), Maps(maps[0], maps[1], "maps")


def merged(each: Labelling, maps: Maps) -> NDArray[np.uint64]:
    steps, _, _ = instance_steps(each, maps)
    for step in steps[:3]:
        run_step(each.directory, step, PicklingExecutor())
    (table,) = (each.directory.root / "tables").glob("merge-*.npy")
    stored: NDArray[np.uint64] = np.load(table)
    return stored


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize(("at_once", "minimum"), [(1, 0), (40, 4), (200, 0)])
def test_both_ways_give_the_same_table(tmp_path: Path, connectivity: int, at_once: int, minimum: int) -> None:
    found = np.random.default_rng(connectivity).random(SHAPE) < {6: 0.3, 18: 0.12, 26: 0.09}[connectivity]
    plan = InstancePlan(127, 127, connectivity, minimum_voxels=minimum)  # type: ignore[arg-type]
    plain = merged(*labelling(tmp_path, found, plan, 10**6))
    levels = merged(*labelling(tmp_path, found, plan, at_once))
    assert len(plain) > 200
    assert np.array_equal(plain, levels)
    stages = [status.stage for status in status_of(RunDirectory(tmp_path / f"run-{at_once}"))]
    assert stages[:3] == ["label", "stitch", "merge-0"]
    assert len(stages) > 3


def test_one_instance_through_every_super_block(tmp_path: Path) -> None:
    found = np.ones(SHAPE, np.bool_)
    found[1:-1, 1:-1, 1:-1] = False
    plan = InstancePlan(127, 127, 6)
    assert np.all(merged(*labelling(tmp_path, found, plan, 1)) == 1)


def test_a_super_block_holds_its_own_fragments_and_hands_up_only_those_at_its_border(tmp_path: Path) -> None:
    found = np.zeros(SHAPE, np.bool_)
    found[::2, ::2, ::2] = True  # single voxels: nothing touches
    each, maps = labelling(tmp_path, found, InstancePlan(127, 127, 6), 300)
    merged(each, maps)
    stages = instance_steps(each, maps)[0][2].all_stages()
    for stage in stages:
        assert isinstance(stage, SuperMergeStage)
        for block in stage.grid:
            stored = stage.unions.read(block.number)
            assert len(stored.crossing) == 0
            assert stored.open_count == 0


def test_finished_levels_are_not_joined_again(tmp_path: Path) -> None:
    found = np.random.default_rng(0).random(SHAPE) < 0.3
    each, maps = labelling(tmp_path, found, InstancePlan(127, 127, 6), 100)
    expected = merged(each, maps)
    (table,) = (each.directory.root / "tables").glob("merge-*.npy")
    table.unlink()  # as if the process had died in the way down
    before = [path.stat().st_mtime_ns for path in sorted(each.directory.root.glob("tables/merge-?/*/*"))]
    assert np.array_equal(merged(each, maps), expected)
    assert [path.stat().st_mtime_ns for path in sorted(each.directory.root.glob("tables/merge-?/*/*"))] == before
    assert len(before) > 2


def test_each_level_is_bound_to_the_one_below_and_the_lowest_to_the_pairs(tmp_path: Path) -> None:
    found = np.random.default_rng(0).random(SHAPE) < 0.3
    each, maps = labelling(tmp_path, found, InstancePlan(127, 127, 6), 1)
    merged(each, maps)
    steps = instance_steps(each, maps)[0]
    levels = steps[2].all_stages()
    assert len(levels) > 1
    read = [steps[1].stages[0], *levels[:-1]]
    assert [getattr(level, "upstream", None) for level in levels] == [stage.fingerprint for stage in read]


def test_the_number_of_levels_follows_the_grid() -> None:
    assert [len(grid) for grid in super_grids((1, 1, 1), 4)] == [1]
    assert [len(grid) for grid in super_grids((3, 5, 9), 2)] == [30, 6, 2, 1]
    assert [grid.block for grid in super_grids((3, 5, 9), 2)] == [(n, n, n) for n in (2, 4, 8, 16)]


@pytest.mark.parametrize(
    ("fragments", "blocks", "at_once", "side"), [(100, 100, 1, 1), (800, 100, 64, 2), (10**8, 10**6, 10**6, 21)]
)
def test_a_super_block_is_about_as_large_as_one_process_may_hold(
    fragments: int, blocks: int, at_once: int, side: int
) -> None:
    assert super_side(fragments, blocks, at_once) == side


def test_a_small_group_is_dropped_only_when_it_is_whole() -> None:
    spans = np.array([[0, 2], [5, 7]])  # blocks with the fragments 0, 1 and 5, 6
    pairs = np.array([[0, 5], [1, 2], [3, 6], [3, 4]])  # 2, 3, 4 are elsewhere
    nodes = Nodes.of_fragments(np.array([1, 1, 1, 1], np.uint64), np.array([7, 3, 9, 4], np.uint64), spans, pairs)
    found = union(nodes, minimum_voxels=3)
    assert found.voxels.tolist() == [1, 1]
    assert found.crossing.tolist() == [[1, 2], [6, 3]]
    assert found.finished.tolist() == []
    assert found.ids_of_nodes(np.array([8, 9], np.uint64), np.zeros(0, np.uint64)).tolist() == [0, 8, 0, 9]
    kept = union(replace(nodes, voxels=np.array([2, 1, 2, 1], np.uint64)), minimum_voxels=3)
    assert kept.finished.tolist() == [7]
