"""Benchmarks run at a tiny size and give rows that make sense; how fast they are is not a test's business.

The one of the driver's memory needs a cluster: tests/workers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import labels, predict_engine
from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the JSON, which also says on what machine they were measured."""
    content = json.loads((folder / f"{name}.json").read_text())
    assert content["name"] == name
    assert content["machine"]["cores"] >= 1 and content["machine"]["processor"]
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_the_prediction_benchmark_compares_the_same_patches(tmp_path: Path) -> None:
    sizes = predict_engine.Sizes((6, 48, 48), (6, 32, 48), (4, 32, 32), (2, 16, 16))
    bare, engine = rows = predict_engine.main(sizes, repeats=1, threads=1, results=tmp_path)
    assert rows == written(tmp_path, "predict_engine")
    # z starts 0, 2; y 0, 16; x 0, 16: both blocks are touched by all of them but the first row of y by the first alone
    assert bare["patches"] == engine["patches"] == 8 + 4
    assert bare["torch_threads"] == 1
    assert bare["ratio_to_bare"] == 1 and engine["ratio_to_bare"] > 0
    assert bare["voxels_a_s"] > 0 and engine["op_s"] > 0


def test_the_label_benchmark_counts_the_instances_that_cc3d_finds(tmp_path: Path) -> None:
    rows = labels.main((64, 96, 80), (32, 32, 32), threads=2, repeats=1, folder=tmp_path / "kept", results=tmp_path)
    assert rows == written(tmp_path, "labels")
    whole, one, two, grown = rows
    assert whole["instances"] == one["instances"] == two["instances"] > 0
    assert 0 < grown["instances"] <= whole["instances"]
    assert all(0.02 < row["seeds"] < 0.2 for row in rows)
    assert whole["merge_s"] == one["grow_s"] == 0 < grown["grow_s"]
    assert all(row["total_s"] >= row["label_s"] > 0 for row in rows)
    assert (tmp_path / "kept" / "maps" / "made").exists()


def test_the_label_benchmark_stops_where_the_segmentation_differs_from_cc3d(tmp_path: Path) -> None:
    grid = BlockGrid((4, 4, 4), (2, 4, 4))
    ome_zarr.create(str(tmp_path), grid.extent, grid.padded_extent, grid.block, "uint64", None)
    stored, expected = open_volume(str(tmp_path)), np.zeros(grid.extent, np.uint64)
    expected[3, 1, 2] = 1
    stored.write(Box.of_shape(grid.extent), expected)
    labels.require_equal(stored, expected, grid)
    expected[3, 1, 2] = 2
    with pytest.raises(AssertionError, match=r"block \[2:4,0:4,0:4\] differs from cc3d on the whole volume"):
        labels.require_equal(stored, expected, grid)
