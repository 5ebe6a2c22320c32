"""Joining pieces across bad slices from stored labels: on every executor, for every block, the same pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor
from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.bridge import bridged
from pipeline.instances.ops.fragments import runs
from pipeline.instances.ops.relabel import compact
from pipeline.instances.stages import bridge
from pipeline.instances.stages.bridge import BridgeStage, bridged_pairs
from pipeline.instances.stored.labels import StoredLabels
from pipeline.instances.stored.provisional import Provisional
from pipeline.store.tables import BlockTables, write_table

EXTENT = (14, 21, 23)
GAP = 2
SHARE = 0.25  # here, pairs that overlap by more and by less
Ids = NDArray[np.uint64]


def broken_columns() -> Ids:
    """Patches of five ids that go on along z, in three pieces with blank slices between them, each with its own ids."""
    patches = np.random.default_rng(4).integers(0, 6, (3, 7, 8), dtype=np.uint64)
    plane = np.repeat(np.repeat(patches, 3, axis=1), 3, axis=2)[:, : EXTENT[1], : EXTENT[2]]
    ids = np.zeros(EXTENT, np.uint64)
    for piece, slices in enumerate((slice(0, 3), slice(4, 8), slice(10, 14))):
        ids[slices] = plane[piece] + np.uint64(100 * (piece + 1)) * (plane[piece] > 0)
    ids[5, 10:] = 0
    return ids


def stored(folder: Path, ids: Ids, block: Vec3, *, grown: bool) -> Provisional:
    """The ids as a run leaves them: labels of each block, with the ids in one table or beside the blocks."""
    grid = BlockGrid(EXTENT, block)
    labels = StoredLabels(BlockTables(folder / "labels"), grid)
    held = []
    for each in grid:
        local, present = compact(np.ascontiguousarray(ids[each.core.slices()]))
        held.append(present)
        if len(present):
            labels.write(each.number, local, runs(local), {"ids": present})
    write_table(folder / "offsets.npy", np.cumsum([0, *map(len, held)]))
    write_table(folder / "merge.npy", np.concatenate(held))
    return Provisional(labels, grid, folder / "offsets.npy", labels.tables if grown else folder / "merge.npy")


def run(stage: BridgeStage, executor: Executor) -> NDArray[np.int64]:
    counts = np.zeros(len(stage.grid), np.int64)
    for result in executor.map(stage, range(len(stage.grid))):
        assert result.error is None
        counts[result.number] = result.count
    found = np.concatenate([np.zeros((0, 2), np.int64), *bridged_pairs(stage, counts, SHARE)])
    return np.unique(found, axis=0)


def stage_on(provisional: Provisional, folder: Path, gap: int = GAP) -> BridgeStage:
    return BridgeStage(provisional, BlockTables(folder / "bridge"), gap, upstream="source")


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("block", [(14, 21, 23), (4, 8, 9), (1, 21, 10), (3, 5, 23)])
def test_stored_blocks_give_the_pairs_of_the_whole_volume(block: Vec3, grown: bool, tmp_path: Path) -> None:
    ids = broken_columns()
    stage = stage_on(stored(tmp_path, ids, block, grown=grown), tmp_path)
    expected = bridged(ids, GAP, SHARE)
    assert 10 < len(expected) < len(bridged(ids, GAP, 0.0)) - 10
    for executor in (SerialExecutor(), PicklingExecutor()):
        assert run(stage, executor).tolist() == expected.tolist()


def test_few_rows_in_memory_at_once_add_up_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = broken_columns()
    stage = stage_on(stored(tmp_path, ids, (4, 8, 9), grown=False), tmp_path)
    monkeypatch.setattr(bridge, "MOST_ROWS", 1)
    assert run(stage, SerialExecutor()).tolist() == bridged(ids, GAP, SHARE).tolist()


def test_a_block_done_twice_stores_and_counts_the_same(tmp_path: Path) -> None:
    stage = stage_on(stored(tmp_path, broken_columns(), (4, 8, 9), grown=True), tmp_path)
    for number in (0, 5, 13):
        first = stage(stage.grid[number])
        before = stage.tables.read(number)
        assert stage(stage.grid[number]).count == first.count == len(before["sections"])
        for name, rows in stage.tables.read(number).items():
            np.testing.assert_array_equal(rows, before[name])


def test_blocks_without_an_instance_store_nothing_and_count_nothing(tmp_path: Path) -> None:
    ids = broken_columns()
    ids[:4] = 0
    stage = stage_on(stored(tmp_path, ids, (4, 21, 23), grown=False), tmp_path)
    assert [stage(stage.grid[number]).count > 0 for number in range(4)] == [False, True, True, True]
    assert not (tmp_path / "bridge" / "00000" / "0.arrays").exists()
    assert run(stage, SerialExecutor()).tolist() == bridged(ids, GAP, SHARE).tolist()


def test_a_lost_table_stops_the_joining(tmp_path: Path) -> None:
    stage = stage_on(stored(tmp_path, broken_columns(), (4, 21, 23), grown=False), tmp_path)
    run(stage, SerialExecutor())
    (tmp_path / "bridge" / "00000" / "2.arrays").unlink()
    with pytest.raises(BadInput, match=r"2\.arrays.*must be there whole.*bridge\.ledger"):
        list(bridged_pairs(stage, np.ones(4, np.int64), SHARE))


def test_what_decides_the_tables_is_in_the_fingerprint(tmp_path: Path) -> None:
    provisional = stored(tmp_path, broken_columns(), (4, 21, 23), grown=False)
    other_blocks = stored(tmp_path / "other", broken_columns(), (5, 21, 23), grown=False)
    stages = [
        stage_on(provisional, tmp_path),
        stage_on(provisional, tmp_path, gap=1),
        stage_on(other_blocks, tmp_path),
        BridgeStage(provisional, BlockTables(tmp_path / "bridge"), GAP, upstream="another"),
    ]
    assert len({stage.fingerprint for stage in stages}) == 4


@pytest.mark.parametrize("grown", [False, True])
def test_any_box_reads_as_its_provisional_ids(grown: bool, tmp_path: Path) -> None:
    ids = broken_columns()
    ids[ids == 103] = 0
    provisional = stored(tmp_path, ids, (4, 8, 9), grown=grown)
    for box in (
        Box.of_shape(EXTENT),
        Box((3, 7, 8), (13, 17, 19)),
        Box((3, 0, 0), (4, 21, 23)),
        Box((0, 0, 0), (1, 1, 1)),
    ):
        read = provisional.read(box)
        assert read.dtype == np.uint64
        np.testing.assert_array_equal(read, ids[box.slices()])
    assert provisional.ids_of(0).tolist() == np.unique(ids[:4, :8, :9])[1:].tolist()
