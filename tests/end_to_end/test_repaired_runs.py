"""A finished run that was damaged, or whose input was mended, is made again where needed and never called finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.drive import run_bare
from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.directory import RunDirectory
from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.instances.table import table_totals
from pipeline.run.config import InstancesConfig
from pipeline.run.job import Job
from pipeline.run.jobs import instances_job
from pipeline.run.verify import Incomplete, is_finished, require_verified
from pipeline.settings import parse_settings
from pipeline.store.volume import Volume, open_volume

SHAPE, BLOCK = (8, 12, 16), (8, 12, 8)


def store(folder: Path, found: NDArray[np.bool_]) -> None:
    grid, like = BlockGrid(SHAPE, (8, 12, 8)), Volume("", "", "zarr", SHAPE, "uint8", (8, 12, 8), (10.0, 10.0, 10.0))
    for name, values in (("semantic", found), ("boundary", ~found)):
        volume = stored_volume(str(folder / name), grid, "uint8", like, (8, 12, 8))
        create_if_missing(volume, grid)
        volume.write(volume.box, values.astype(np.uint8) * 255)


def job(folder: Path, **instances: Any) -> Job:
    values = {
        "semantic": str(folder / "semantic"),
        "boundary": str(folder / "boundary"),
        "output": str(folder / "out"),
        "block": {"shape": BLOCK},
        "instances": {"minimum_voxels": 0, **instances},
        "cluster": {"kind": "none", "threads_per_worker": 1},
    }
    return instances_job(parse_settings(InstancesConfig, values))


def two_objects() -> NDArray[np.bool_]:
    found = np.zeros(SHAPE, np.bool_)
    found[2:6, 2:5, 5:14] = True  # through both blocks
    found[2:6, 8:11, 10:13] = True  # in the second
    return found


def segmentation(folder: Path) -> NDArray[np.uint64]:
    volume = open_volume(str(folder / "out" / "precomputed" / "segmentation"))
    return volume.read(volume.box)


def lose_tables(pattern: str) -> Callable[[RunDirectory], None]:
    def lose(run: RunDirectory) -> None:
        found = list((run.root / "tables").glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return lose


def tear_tables(run: RunDirectory) -> None:
    for path in (run.root / "tables").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    "damage",
    [lose_tables("offsets-*.npy"), lose_tables("final-*.npy"), lose_tables("*.npy"), tear_tables],
    ids=["offsets lost", "final ids lost", "every table lost", "every table torn"],
)
def test_a_finished_run_with_a_damaged_table_is_not_complete_and_the_same_command_mends_it(
    tmp_path: Path, damage: Callable[[RunDirectory], None]
) -> None:
    store(tmp_path, two_objects())
    assert run_bare(job(tmp_path), None) is not None
    before, run = segmentation(tmp_path), RunDirectory(tmp_path / "out")
    damage(run)
    with pytest.raises(Incomplete):
        require_verified(job(tmp_path).steps, run)
    assert not is_finished(run)
    for path in (run.root / "tables").glob("*.npy"):
        if path.stat().st_size == 40:
            path.unlink()  # as the message says
    assert run_bare(job(tmp_path), None) is not None
    require_verified(job(tmp_path).steps, run)
    assert np.array_equal(segmentation(tmp_path), before)


def test_an_instance_table_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    store(tmp_path, two_objects())
    run_bare(job(tmp_path), None)
    shutil.rmtree(tmp_path / "out" / "instances.parquet")
    assert run_bare(job(tmp_path), None) is not None
    assert table_totals(tmp_path / "out" / "instances.parquet") == (2, int(two_objects().sum()))


@pytest.mark.parametrize("grow", ["none", "mask"])
@pytest.mark.parametrize("deleted", ["label", "every ledger"])
def test_after_a_mended_input_nothing_made_of_the_old_one_is_left(tmp_path: Path, grow: str, deleted: str) -> None:
    store(tmp_path, two_objects())
    run_bare(job(tmp_path, grow=grow), None)
    mended = np.zeros(SHAPE, np.bool_)
    mended[1:7, 1:11, 1:4] = mended[1:3, 1:3, 5:7] = True  # two objects in the first block, none in the second
    store(tmp_path, mended)  # the same files of metadata: nothing tells that the voxels changed
    run = RunDirectory(tmp_path / "out")
    for ledger in (run.root / "ledgers").glob("label.ledger" if deleted == "label" else "*.ledger"):
        ledger.unlink()
    run.report.unlink()
    assert run_bare(job(tmp_path, grow=grow), None) is not None
    require_verified(job(tmp_path, grow=grow).steps, run)
    assert np.array_equal(segmentation(tmp_path) > 0, mended)
    assert table_totals(run.instances) == (2, int(mended.sum()))
    arrays = {
        path.name: open_volume(str(path)).read(Box.of_shape(SHAPE)) > 0 for path in (run.root / "arrays").iterdir()
    }
    assert all(np.array_equal(array, mended) for array in arrays.values()), list(arrays)


def test_making_the_last_step_again_keeps_the_ones_before(tmp_path: Path) -> None:
    store(tmp_path, two_objects())
    run_bare(job(tmp_path), None)
    run = RunDirectory(tmp_path / "out")
    kept = {
        path: path.stat().st_mtime_ns for path in [*run.root.glob("ledgers/label*"), *run.root.glob("tables/*.npy")]
    }
    (run.root / "ledgers" / "export-segmentation-mip0.ledger").unlink()
    run.report.unlink()
    run_bare(job(tmp_path), None)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
