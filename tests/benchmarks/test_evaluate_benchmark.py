"""The benchmark of the evaluation runs, at a tiny size."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import evaluate


def test_every_way_is_measured_on_volumes_that_hold_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = accumulate([0.0, 0.002, 1.0, 0.004, 1.0, 0.008])  # at the start and the end of each way
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(perf_counter=clock.__next__))
    rows = evaluate.main((32,), 16, 1, tmp_path)
    assert rows == json.loads((tmp_path / "evaluate.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["read both, 1 thread", "evaluate, 1 thread", "evaluate, 2 threads"]
    assert {row["voxels"] for row in rows} == {"32x32x32"}
    assert [row["seconds"] for row in rows] == [0.002, 0.004, 0.008]
    assert [row["mvoxel_s"] for row in rows] == [16.4, 8.2, 4.1]
    chunks, in_each = 2**3, np.count_nonzero(np.unique(evaluate.balls(16)))
    assert in_each > 8 and {row["instances"] for row in rows} == {chunks * in_each}


def test_the_made_volumes_are_about_a_tenth_full() -> None:
    assert 0.05 < (evaluate.balls(64) > 0).mean() < 0.2
