"""The same voxels come out for every block shape, executor and number of workers, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_restorer import damaged_values, denoise, whole, write_tiny_restorer
from tiny_run import Result, job_of, result_of, run_here, settings, write_volume

from flows.drive import drive
from pipeline.engine.directory import RunDirectory
from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.step import run_step
from pipeline.run.config import InstancesConfig
from pipeline.run.jobs import instances_job
from pipeline.settings import parse_settings
from pipeline.store.tables import open_table
from pipeline.store.volume import open_volume
from workers.cluster import open_executor

ONE_BLOCK = {"block.shape": [40, 96, 96]}
RAGGED = {"block.shape": [13, 40, 37]}  # divides nothing


@pytest.fixture(scope="module")
def reference(tiny_model: Path, phantom_path: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The whole volume as one block, in this process."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, run_here(settings(phantom_path, folder, tiny_model, ONE_BLOCK))


def test_the_reference_has_some_dozens_of_instances(reference: tuple[Path, Result]) -> None:
    assert 20 < reference[1].count < 200
    assert reference[1].table.num_rows == reference[1].count
    ids, voxels = np.unique(reference[1].segmentation, return_counts=True)
    assert ids.tolist() == list(range(reference[1].count + 1))
    assert reference[1].table["voxels"].to_pylist() == voxels[1:].tolist()


def test_blocks_that_divide_nothing_give_the_same_through_pickle(
    reference: tuple[Path, Result], tiny_model: Path, phantom_path: str, tmp_path: Path
) -> None:
    made = run_here(settings(phantom_path, tmp_path / "run", tiny_model, RAGGED), PicklingExecutor())
    made.require_same(reference[1])
    assert _crossing(tmp_path / "run") > 5


@pytest.mark.parametrize(("workers", "block"), [(1, [20, 96, 33]), (2, [16, 48, 48])])
def test_a_real_cluster_gives_the_same(
    workers: int,
    block: list[int],
    reference: tuple[Path, Result],
    tiny_model: Path,
    phantom_path: str,
    tmp_path: Path,
) -> None:
    cluster = ClusterSettings(workers=workers, compute_threads=1, memory_limit="2 GiB")
    values = settings(phantom_path, tmp_path / "run", tiny_model, {"block.shape": block})
    with open_executor(cluster) as executor:
        run_here(values, executor).require_same(reference[1])
        if workers == 2:  # a cluster takes longer to start than this
            _require_same_restoration(executor, tiny_model, tmp_path)


def _require_same_restoration(executor: Executor, tiny_model: Path, folder: Path) -> None:
    raw = write_volume(folder / "raw", damaged_values()[1])
    chosen = {**denoise(write_tiny_restorer(folder / "restorer")), "block.shape": [8, 32, 32]}
    made = []
    for number, each in enumerate([executor, SerialExecutor()]):
        job = job_of(settings(raw, folder / str(number), tiny_model, chosen))
        with job.opened():
            for step in job.steps[: [step.name for step in job.steps].index("predict")]:
                run_step(job.directory, step, each)
        made.append([whole(folder / str(number) / "arrays" / name) for name in ("damage", "restored", "replaced")])
    for one, other in zip(*made, strict=True):
        assert one.any()
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scale", [[1, 2, 2], [2, 2, 2]])
def test_averaged_voxels_give_the_same_for_every_block_shape(
    scale: list[int], tiny_model: Path, phantom_path: str, tmp_path: Path
) -> None:
    chosen = {"predict.scale": scale}
    whole = run_here(settings(phantom_path, tmp_path / "whole", tiny_model, {**chosen, **ONE_BLOCK}))
    assert whole.count > 5
    for number, (block, executor) in enumerate([(RAGGED, ThreadsExecutor(2)), ({"block.shape": [40, 31, 96]}, None)]):
        values = settings(phantom_path, tmp_path / str(number), tiny_model, {**chosen, **block})
        run_here(values, executor).require_same(whole)


@pytest.mark.parametrize("weights", ["gaussian", "crop"])
def test_every_kind_of_blending_gives_the_same_for_every_block_shape(
    weights: str, tiny_model: Path, phantom_path: str, tmp_path: Path
) -> None:
    chosen = {"predict.scale": [2, 2, 2], "predict.weights": weights}
    whole = run_here(settings(phantom_path, tmp_path / "whole", tiny_model, {**chosen, **ONE_BLOCK}))
    run_here(settings(phantom_path, tmp_path / "cut", tiny_model, {**chosen, **RAGGED})).require_same(whole)


SEEDS = {"seed_above": 0.55, "boundary_below": 0.6, "mask_above": 0.3, "minimum_voxels": 5}


@pytest.mark.parametrize(
    "instances",
    [
        {"preset": "default", "grow": "mask", "grow_nm": 50.0},
        {"preset": "default", "grow": "none"},
        {"preset": "default", "grow": "dilate", "connectivity": 18},
        {"preset": "default", "grow": "mask", "grow_nm": 30.0, "connectivity": 26},
        {"preset": "published"},
        {"preset": "published", "connectivity": 26, "grow": "none"},
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()),
)
def test_instances_from_maps_are_the_same_for_every_block_shape(
    instances: dict[str, Any], reference: tuple[Path, Result], tmp_path: Path
) -> None:
    made = [
        _from_maps(reference[0], tmp_path / str(number), block, {**SEEDS, **instances}, executor)
        for number, (block, executor) in enumerate(
            [
                ([40, 96, 96], SerialExecutor()),
                ([13, 40, 37], ThreadsExecutor(2)),
                ([7, 96, 11], PicklingExecutor()),
            ]
        )
    ]
    assert made[0][1].num_rows > 5
    for segmentation, table in made[1:]:
        np.testing.assert_array_equal(segmentation, made[0][0])
        assert table.equals(made[0][1])


def _from_maps(maps: Path, output: Path, block: list[int], instances: dict[str, Any], executor: Any) -> tuple[Any, Any]:
    values = {
        "semantic": str(maps / "arrays" / "semantic"),
        "boundary": str(maps / "arrays" / "boundary"),
        "output": str(output),
        "block": {"shape": block},
        "instances": instances,
    }
    job = instances_job(parse_settings(InstancesConfig, values))
    with job.opened():
        drive(job, executor, None)
    import pyarrow.parquet as parquet

    volume = open_volume(str(output / "arrays" / "segmentation"))
    return volume.read(volume.box), parquet.read_table(output / "instances.parquet")


def test_a_map_from_this_run_gives_the_instances_of_this_run(reference: tuple[Path, Result], tmp_path: Path) -> None:
    from tiny_run import THRESHOLDS

    chosen = {
        "seed_above": THRESHOLDS["seed_semantic"],
        "boundary_below": THRESHOLDS["seed_boundary"],
        "mask_above": THRESHOLDS["semantic"],
        "minimum_voxels": 8,
    }
    job_directory, whole = reference
    reach = _grown_nm(job_directory)
    segmentation, table = _from_maps(
        job_directory, tmp_path / "again", [16, 48, 48], {**chosen, "grow_nm": reach}, SerialExecutor()
    )
    np.testing.assert_array_equal(segmentation, whole.segmentation)
    assert table.equals(whole.table)


def _grown_nm(directory: Path) -> float:
    from flows.commands.runs import recorded_job

    (grow,) = (s for step in recorded_job(RunDirectory(directory)).steps for s in step.stages if s.name == "grow")
    return float(grow.plan.grow_nm)  # type: ignore[attr-defined]


def _crossing(directory: Path) -> int:
    """How many instances have parts in more than one block."""
    (table,) = (directory / "tables").glob("final-*.npy")
    ids, parts = np.unique(open_table(table), return_counts=True)
    return int(np.count_nonzero(parts[ids > 0] > 1))


def test_the_result_is_the_stored_one(reference: tuple[Path, Result]) -> None:
    result_of(reference[0]).require_same(reference[1])
    np.testing.assert_array_equal(reference[1].exported, reference[1].segmentation)
