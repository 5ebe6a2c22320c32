"""The instance table from the stored tables of blocks: the whole volume's, in parts, whole or not at all."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.directory import RunDirectory, counts_of, open_ledger
from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, run_stage
from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import fragment_table, runs
from pipeline.instances.ops.relabel import compact
from pipeline.instances.ops.shape import instance_columns
from pipeline.instances.ops.surface import pairs_within
from pipeline.instances.stages.measure import MeasureStage
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.stored.labels import StoredLabels
from pipeline.instances.table import (
    Counted,
    Parts,
    Space,
    count_rows,
    instances,
    part_files,
    table_problems,
    table_totals,
    write_instance_table,
)
from pipeline.store.tables import write_table
from pipeline.store.volume import Volume

SIZE, OFFSET = (30.0, 8.0, 4.0), (100.0, -20.0, 3.0)
Ids = NDArray[np.uint64]


def some_ids(shape: Vec3, n: int, density: float, seed: int) -> Ids:
    """Objects, in one piece or not, numbered by their first voxels."""
    rng = np.random.default_rng(seed)
    volume = rng.integers(1, n + 1, shape) * (rng.random(shape) < density)
    _, first, inverse = np.unique(volume, return_index=True, return_inverse=True)
    order = np.argsort(np.where(volume.flat[first] > 0, first, -1))
    number = np.empty(len(first), np.uint64)
    number[order] = np.arange(len(first))
    return (number + np.uint64(0 if (volume == 0).any() else 1))[inverse].reshape(shape)


def semantic_of(ids: Ids) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, ids.shape, dtype=np.uint8)


def whole_table(ids: Ids) -> pa.Table:
    n = int(ids.max(initial=0))
    labels = ids.astype(np.uint32)
    rows = fragment_table(labels, n, Box.of_shape(ids.shape), ids.shape, semantic_of(ids))
    pairs = pairs_within(labels, np.arange(1, n + 1), n)
    return pa.table(instance_columns(rows, pairs, ids.shape, SIZE, OFFSET))


def stored_parts(folder: Path, ids: Ids, block: Vec3, executor: Executor | None = None) -> Parts:
    """What labelling leaves behind, made into parts of the table by the real stages."""
    directory, grid = RunDirectory(folder), BlockGrid(ids.shape, block)
    like = Volume("", "", "zarr", ids.shape, "uint32", block, SIZE, OFFSET)
    segmentation = stored_volume(directory.array("segmentation"), grid, "uint64", like, block)
    create_if_missing(segmentation, grid)
    labels, pairs = StoredLabels(directory.block_tables("labels"), grid), directory.block_tables("pairs")
    present = []
    for each in grid:
        local, found = compact(ids[each.core.slices()])
        semantic = np.ascontiguousarray(semantic_of(ids)[each.core.slices()])
        rows = fragment_table(local, len(found), each.core, ids.shape, semantic)
        labels.write(each.number, local, runs(local), {"rows": rows})
        present.append(found)
    offsets, table = folder / "offsets.npy", folder / "table.npy"
    counts = np.array(list(map(len, present)))
    write_table(offsets, np.concatenate([[0], np.cumsum(counts)]))
    write_table(table, np.concatenate(present))
    relabel = RelabelStage(labels, offsets, table, segmentation, upstream="", grid=grid)
    measure = MeasureStage(labels, offsets, table, pairs, upstream="", grid=grid)
    for stage in (relabel, measure):
        with open_ledger(directory, stage) as ledger:
            run_stage(stage, ledger, executor or SerialExecutor())
    assert np.array_equal(segmentation.read(segmentation.box), ids)
    return Parts(Counted(labels.tables, counts), offsets, table, Counted(pairs, counts_of(directory, measure)))


def space(ids: Ids) -> Space:
    return Space(ids.shape, SIZE, OFFSET)


@settings(max_examples=14, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(2, 8)] * 3),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_any_blocks_and_any_parts_give_the_table_of_the_whole(
    shape: Vec3, block: Vec3, density: float, n: int, part: int
) -> None:
    ids = some_ids(shape, n, density, seed=n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        write_instance_table(path, stored_parts(Path(folder), ids, block), space(ids), part)
        expected = whole_table(ids)
        assert parquet.read_table(path).equals(expected)
        assert count_rows(path) == len(expected) == int(ids.max(initial=0))
        assert table_totals(path) == (len(expected), int(np.count_nonzero(ids)))
        assert len(part_files(path)) == max(-(-len(expected) // part), 1)
        assert table_problems(path, len(expected)) == []


def test_blocks_of_one_voxel_and_workers_that_pickle_give_it_too(tmp_path: Path) -> None:
    ids = some_ids((3, 4, 4), 3, 0.7, 1)
    parts = stored_parts(tmp_path, ids, (1, 1, 1), PicklingExecutor())
    write_instance_table(tmp_path / "table", parts, space(ids))
    assert parquet.read_table(tmp_path / "table").equals(whole_table(ids))


@pytest.fixture(scope="module")
def ids() -> Ids:
    return some_ids((12, 12, 12), 40, 0.3, 6)


@pytest.fixture(scope="module")
def parts(ids: Ids, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return stored_parts(tmp_path_factory.mktemp("parts"), ids, (6, 12, 5))


@pytest.fixture
def table(ids: Ids, parts: Parts, tmp_path: Path) -> Path:
    """40 instances in six parts."""
    write_instance_table(tmp_path / "instances.parquet", parts, space(ids), part=7)
    return tmp_path / "instances.parquet"


def test_a_segmentation_without_instances_has_a_table_of_no_rows(tmp_path: Path) -> None:
    nothing = np.zeros((3, 4, 5), np.uint64)
    write_instance_table(tmp_path / "table", stored_parts(tmp_path, nothing, (2, 2, 2)), space(nothing))
    assert table_totals(tmp_path / "table") == (0, 0)
    assert table_problems(tmp_path / "table", 0) == []
    assert parquet.read_table(tmp_path / "table").schema == whole_table(some_ids((2, 2, 2), 1, 1.0, 0)).schema
    assert [len(batch) for batch in instances(tmp_path / "table")] in ([], [0])


def test_columns_and_filters_give_the_chosen_part_in_order(ids: Ids, table: Path) -> None:
    expected = [row["id"] for row in whole_table(ids).to_pylist() if row["voxels"] > 12 and row["z0_nm"] < 150]
    where = (compute.field("voxels") > 12) & (compute.field("z0_nm") < 150)
    found = pa.Table.from_batches(instances(table, ["id"], where))
    assert found.column_names == ["id"]
    assert found["id"].to_pylist() == expected
    assert 0 < len(expected) < 40


def test_a_filter_on_ids_reads_only_the_parts_that_may_hold_them(table: Path) -> None:
    for damaged in part_files(table)[1:]:
        content = bytearray(damaged.read_bytes())
        content[4:400] = bytes(396)  # the pages; the footer with its statistics stays
        damaged.write_bytes(content)
    (batch,) = [b for b in instances(table, ["id", "voxels"], compute.field("id") < 5) if len(b)]
    assert batch["id"].to_pylist() == [1, 2, 3, 4]
    with pytest.raises((OSError, pa.ArrowException)):
        list(instances(table, ["id", "voxels"]))


_KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from pipeline.instances import table as instance_table
arguments, moment = pickle.load(open(sys.argv[1], "rb")), int(sys.argv[2])
calls = []
def dying(original):
    def call(*given, **named):
        calls.append(given)
        if len(calls) > moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **named)
    return call
instance_table.parquet.write_table = dying(instance_table.parquet.write_table)
Path.rename = dying(Path.rename)
instance_table.write_instance_table(*arguments)
"""


@pytest.mark.parametrize("moment", [0, 3, 6])
def test_a_kill_leaves_no_table_and_the_next_call_makes_the_very_same(
    moment: int, ids: Ids, parts: Parts, table: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.parquet"
    (tmp_path / "arguments").write_bytes(pickle.dumps((again, parts, space(ids), 7)))
    child = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "arguments", str(moment)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert not again.exists()
    assert (tmp_path / ".again.parquet.making").exists()
    write_instance_table(again, parts, space(ids), 7)
    assert {p.name: p.read_bytes() for p in part_files(again)} == {p.name: p.read_bytes() for p in part_files(table)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.parquet", "arguments", "instances.parquet"]


def test_a_table_that_is_there_is_left_alone(ids: Ids, parts: Parts, table: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in part_files(table)}
    write_instance_table(table, parts, space(ids), part=3)
    assert {path: path.stat().st_mtime_ns for path in part_files(table)} == before


@pytest.mark.parametrize("keep", [0, 10, 300, -20])
def test_a_torn_part_is_a_problem_with_its_name_and_not_a_crash(keep: int, table: Path) -> None:
    torn = table / "part-00002.parquet"
    torn.write_bytes(torn.read_bytes()[:keep])
    (problem,) = table_problems(table, 40)
    assert "part-00002.parquet" in problem
    assert "must be whole Parquet" in problem
    for use in (count_rows, table_totals, lambda path: list(instances(path))):
        with pytest.raises(BadInput, match="part-00002"):
            use(table)


def test_parts_that_are_gone_too_many_or_exchanged_are_problems(table: Path) -> None:
    first, second, *_, last = part_files(table)
    kept = last.read_bytes()
    last.unlink()
    assert "the segmentation has 40" in table_problems(table, 40)[0]
    last.write_bytes(kept)
    assert table_problems(table, 40) == []
    assert "the segmentation has 39" in table_problems(table, 39)[0]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert "do not hold the ids 1 to 40 in order" in table_problems(table, 40)[0]
    for part in part_files(table):
        part.unlink()
    assert "must be a folder of parts" in table_problems(table, 40)[0]
