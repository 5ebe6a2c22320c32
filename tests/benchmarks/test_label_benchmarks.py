"""The benchmarks of labelling at scale run at a tiny size and check what they claim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_scaling
from benchmarks.made_maps import mirrored_maps
from pipeline.geometry import Box


def test_a_mirrored_tile_reads_as_if_it_had_been_stored(tmp_path: Path) -> None:
    maps = mirrored_maps(tmp_path, (40, 50, 36), (16, 24, 20))
    tile = np.load(maps.semantic.url)
    stored = np.pad(tile, ((0, 24), (0, 26), (0, 16)), "symmetric")
    assert stored.shape == maps.semantic.shape and tile.std() > 0
    for box in (maps.semantic.box, Box((3, 1, 19), (33, 49, 36)), Box((15, 24, 20), (17, 25, 21))):
        assert np.array_equal(maps.semantic.read(box), stored[box.slices()])


def test_the_scaling_benchmark_labels_volumes_of_every_size(tmp_path: Path) -> None:
    rows = label_scaling.main((32, 64), block=16, tile=32, repeats=1, results=tmp_path, run=label_scaling.Case.run)
    assert rows == json.loads((tmp_path / "label_scaling.json").read_text())["rows"]
    small, large = rows
    assert (small["blocks"], large["blocks"]) == (8, 64)
    assert 0 < small["instances"] < large["instances"]
    assert min(row["to_cheapest"] for row in rows) == 1
    assert all(row["peak_mb"][0] > 10 and row["total_s"] > 0 for row in rows)
