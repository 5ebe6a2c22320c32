"""The benchmark of the evaluation runs, at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import evaluate


def test_every_way_is_measured_on_volumes_that_hold_instances(tmp_path: Path) -> None:
    rows = evaluate.main((32,), 16, 1, tmp_path)
    assert rows == json.loads((tmp_path / "evaluate.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["read both, 1 thread", "evaluate, 1 thread", "evaluate, 2 threads"]
    assert {row["voxels"] for row in rows} == {"32x32x32"}
    assert all(row["instances"] > 8 and row["mvoxel_s"] >= 0 for row in rows)


def test_the_made_volumes_are_about_a_tenth_full() -> None:
    assert 0.05 < (evaluate.balls(64) > 0).mean() < 0.2
