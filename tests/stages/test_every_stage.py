"""Whole runs of volumes at the edges of what there can be, stage by stage, on the executors without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray
from tiny_run import job_of, ledger_lines, phantom_values, result_of, run_here, settings, write_volume

from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor
from pipeline.engine.step import run_step
from pipeline.errors import BadInput, StageFailed
from pipeline.run.verify import verify
from pipeline.store.volume import open_volume

SHAPE = (21, 40, 52)  # no axis is a multiple of a block, a chunk or a patch
BLOCKS = {"block.shape": [12, 24, 30]}  # 2 x 2 x 2
EXECUTORS: list[Executor] = [SerialExecutor(), PicklingExecutor(), ThreadsExecutor(2)]


def _stored(directory: Path) -> dict[str, NDArray[Any]]:
    """Every array that the stages of a run write."""
    arrays = sorted((directory / "arrays").iterdir())
    return {path.name: (volume := open_volume(str(path))).read(volume.box) for path in arrays}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A volume that nothing divides."""
    return write_volume(tmp_path_factory.mktemp("ragged") / "raw", phantom_values(SHAPE))


def test_every_stage_stores_the_same_on_every_executor(ragged: str, tiny_model: Path, tmp_path: Path) -> None:
    jobs = [job_of(settings(ragged, tmp_path / str(n), tiny_model, BLOCKS)) for n in range(len(EXECUTORS))]
    for steps in zip(*(job.steps for job in jobs), strict=True):
        for job, step, executor in zip(jobs, steps, EXECUTORS, strict=True):
            run_step(job.directory, step, executor)
        first, *others = (_stored(job.directory.root) for job in jobs)
        for other in others:
            assert first.keys() == other.keys()
            for name in first:
                np.testing.assert_array_equal(first[name], other[name], err_msg=f"{name} after {steps[0].name}")
    for job in jobs:
        assert verify(job.steps, job.directory) == []
    assert result_of(jobs[0].directory.root).count > 2


def test_every_stage_may_run_twice_and_counts_the_same(ragged: str, tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(settings(ragged, tmp_path / "run", tiny_model, BLOCKS))
    for step in job.steps:
        run_step(job.directory, step, SerialExecutor())
        before = _stored(job.directory.root)
        for stage in step.stages:
            counts = [int(line.split()[1]) for line in ledger_lines(job.directory.root, stage.name)]
            assert [stage(stage.grid[number]).count for number in range(len(stage.grid))] == counts
        after = _stored(job.directory.root)
        for name, array in before.items():
            np.testing.assert_array_equal(array, after[name])
    assert verify(job.steps, job.directory) == []


@pytest.mark.parametrize(
    ("kind", "grow"), [("zeros", "mask"), ("zeros", "dilate"), ("zeros", "none"), ("dark", "mask"), ("light", "dilate")]
)
def test_a_volume_of_one_value_completes(kind: str, grow: str, tiny_model: Path, tmp_path: Path) -> None:
    values = np.full(SHAPE, {"zeros": 0, "dark": 1, "light": 255}[kind], np.uint8)
    where = write_volume(tmp_path / "raw", values)
    made = run_here(settings(where, tmp_path / "run", tiny_model, {**BLOCKS, "instances.grow": grow}))
    assert made.table.num_rows == made.count
    if kind == "zeros":
        assert made.count == 0
        assert not made.semantic.any()
        assert not made.exported.any()


@pytest.mark.parametrize(("block", "grow"), [([8, 40, 24], "mask"), ([21, 40, 52], "dilate"), ([64, 64, 64], "none")])
def test_a_volume_full_of_foreground_is_one_instance(
    block: list[int], grow: str, tiny_model: Path, tmp_path: Path
) -> None:
    # Every voxel is above and below these thresholds.
    chosen = {
        "block.shape": block,
        "instances.grow": grow,
        "instances.seed_above": 0.0,
        "instances.mask_above": 0.0,
        "instances.boundary_below": 1.0,
        "export.layers": ["segmentation"],
    }
    values = np.tile(np.arange(52, dtype=np.uint8) + 60, (21, 40, 1))
    made = run_here(settings(write_volume(tmp_path / "raw", values), tmp_path / "run", tiny_model, chosen))
    seeded = (made.semantic > 0) & (made.boundary < 255)
    assert seeded.mean() > 0.5
    assert made.count >= 1
    assert (made.segmentation[seeded] > 0).mean() > 0.95
    assert made.table.num_rows == made.count


def test_maps_full_of_foreground_are_one_instance_of_all_voxels(tmp_path: Path) -> None:
    from flows.drive import drive
    from pipeline.run.config import InstancesConfig
    from pipeline.run.jobs import instances_job
    from pipeline.settings import parse_settings

    maps = {
        "semantic": write_volume(tmp_path / "semantic", np.full(SHAPE, 255, np.uint8)),
        "boundary": write_volume(tmp_path / "boundary", np.zeros(SHAPE, np.uint8)),
    }
    for grow in ("mask", "dilate", "none"):
        values = {**maps, "output": str(tmp_path / grow), "instances": {"grow": grow}, "block": {"shape": [8, 24, 24]}}
        job = instances_job(parse_settings(InstancesConfig, values))
        with job.opened():
            report = drive(job, SerialExecutor(), None)
        assert (report["instances"], report["instance_voxels"]) == (1, 21 * 40 * 52)
        (row,) = parquet.read_table(tmp_path / grow / "instances.parquet").to_pylist()
        assert row["touches_border"] is True
        assert (row["z1_nm"], row["y1_nm"], row["x1_nm"]) == (210.0, 400.0, 520.0)


def test_a_run_of_one_block_equals_one_of_many(ragged: str, tiny_model: Path, tmp_path: Path) -> None:
    whole = run_here(settings(ragged, tmp_path / "one", tiny_model, {"block.shape": [64, 64, 64]}))
    run_here(settings(ragged, tmp_path / "many", tiny_model, BLOCKS)).require_same(whole)
    run_here(settings(ragged, tmp_path / "flat", tiny_model, {"block.shape": [5, 40, 52]})).require_same(whole)


def test_a_volume_of_one_section_completes(tiny_model: Path, tmp_path: Path) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((1, 40, 52)))
    whole = run_here(settings(where, tmp_path / "one", tiny_model))
    run_here(settings(where, tmp_path / "many", tiny_model, {"block.shape": [1, 13, 29]})).require_same(whole)


def test_wide_and_float_data_complete_and_do_not_depend_on_the_blocks(tiny_model: Path, tmp_path: Path) -> None:
    grey = phantom_values(SHAPE)
    for name, values in (("uint16", grey.astype(np.uint16) * 200 + 900), ("float32", grey.astype(np.float32) / 255)):
        where = write_volume(tmp_path / name, values)
        chosen = {"export.layers": ["raw", "segmentation"]}
        whole = run_here(settings(where, tmp_path / f"{name}-one", tiny_model, chosen))
        run_here(settings(where, tmp_path / f"{name}-many", tiny_model, {**chosen, **BLOCKS})).require_same(whole)
        assert whole.count > 2


def test_a_worker_that_holds_other_weights_of_that_name_refuses_to_compute(tmp_path: Path) -> None:
    from tiny_run import write_tiny_model

    from pipeline.model.load import load_model

    model = write_tiny_model(tmp_path / "model")
    load_model(model)  # what a worker that outlives a run has in memory
    write_tiny_model(tmp_path / "model", seed=6)
    where = write_volume(tmp_path / "raw", phantom_values((8, 32, 32)))
    with pytest.raises((StageFailed, BadInput), match="every worker computes with the weights the run was planned"):
        run_here(settings(where, tmp_path / "run", model))


def test_a_process_notices_that_another_array_stands_at_the_same_place(tmp_path: Path) -> None:
    first = open_volume(write_volume(tmp_path / "raw", np.full((16, 32, 32), 3, np.uint8)))
    assert first.read(first.box).min() == 3
    shutil.rmtree(tmp_path / "raw")
    second = open_volume(write_volume(tmp_path / "raw", np.full((20, 40, 48), 5, np.uint8)))
    assert second.read(second.box).min() == 5
