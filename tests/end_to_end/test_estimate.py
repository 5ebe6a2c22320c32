"""What a run is said to need on the disk, against what it stores."""

from __future__ import annotations

from pathlib import Path

from tiny_run import phantom_values, run_here, settings, write_volume

from flows.reports.estimate import COLLAR_BYTES, TABLE_BYTES, TABLE_BYTES_A_BLOCK, _collar_share, estimate
from pipeline.grid import BlockGrid
from pipeline.instances.stored.collars import Collars
from pipeline.run.config import parse_config
from pipeline.run.jobs import run_job
from pipeline.store.tables import BlockTables

SHAPE = (40, 64, 64)
VOXELS = 40 * 64 * 64


def test_collars_are_counted_face_by_face(tmp_path: Path) -> None:
    grid = BlockGrid((64, 256, 256), (32, 64, 128))
    tables = BlockTables(tmp_path)
    assert _collar_share(None) == 0.0
    assert _collar_share(Collars((0, 0, 0), grid, tables)) == 0.0
    assert _collar_share(Collars((2, 4, 4), grid, tables)) == 4 / 32 + 8 / 64 + 8 / 128


def test_collars_and_tables_are_counted_as_many_as_there_are(tmp_path: Path, tiny_model: Path) -> None:
    where = write_volume(tmp_path / "raw", phantom_values(SHAPE))

    def planned(**changes: list[int]) -> int:
        values = settings(where, tmp_path / "run", tiny_model, {"block.shape": changes["block"]})
        job, plan = run_job(parse_config(values))
        return int(estimate(plan, job, measure=False)["disk_bytes"])

    # 30 nm are 3 voxels; with one block there is no neighbour to serve.
    share = 6 / 40 + 6 / 32 + 6 / 32
    collars = VOXELS * COLLAR_BYTES * share
    more = planned(block=[40, 32, 32]) - planned(block=[40, 64, 64])
    assert abs(more - collars - 3 * TABLE_BYTES_A_BLOCK) <= 1


def test_the_estimate_is_within_a_factor_of_five_of_the_tables_that_a_run_stores(
    tmp_path: Path, tiny_model: Path
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values(SHAPE))
    run_here(settings(where, tmp_path / "run", tiny_model, {"block.shape": [40, 32, 32]}))
    stored = {
        folder: sum(path.stat().st_size for path in (tmp_path / "run" / folder).rglob("*") if path.is_file())
        for folder in ("tables", "tables/label-collars", "instances.parquet")
    }
    tables = stored["tables"] - stored["tables/label-collars"] + stored["instances.parquet"]
    said = {"tables": VOXELS * TABLE_BYTES + 4 * TABLE_BYTES_A_BLOCK, "collars": VOXELS * COLLAR_BYTES * 0.5}
    assert 1 / 5 < tables / said["tables"] < 5
    assert 1 / 5 < stored["tables/label-collars"] / said["collars"] < 5
