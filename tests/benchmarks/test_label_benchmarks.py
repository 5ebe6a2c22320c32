"""The benchmarks of labelling at scale run at a tiny size and check what they claim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_scaling, merge_scale
from benchmarks.made_maps import mirrored_maps
from benchmarks.simulated_fragments import Fragments
from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.ops.merge import merge


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


def test_the_merge_benchmark_joins_what_was_simulated_both_ways(tmp_path: Path) -> None:
    rows = merge_scale.main(((5, 3),), at_once=50, workers=0, results=tmp_path, run=merge_scale.Case.run)
    assert rows == json.loads((tmp_path / "merge_scale.json").read_text())["rows"]
    at_once, by_super_blocks = rows
    assert at_once["fragments"] == by_super_blocks["fragments"] == 375
    assert at_once["instances"] == by_super_blocks["instances"] > 3
    assert at_once["super_blocks"] == 0 and by_super_blocks["super_blocks"] > 8
    assert all(row["seconds"] > 0 and row["peak_mb"][0] > 10 for row in rows)


def test_simulated_instances_are_what_their_pairs_join() -> None:
    fragments = Fragments(BlockGrid((24, 20, 28), (4, 4, 4)), 7)
    rows = np.concatenate([fragments.rows(block) for block in fragments.grid])
    pairs = np.concatenate([fragments.pairs(block) for block in fragments.grid])
    assert len(np.unique(rows["first"])) == len(rows)
    table = merge(len(rows), pairs, rows)
    assert merge_scale.require_right(table, fragments) == table.max() == fragments.instances()
    table[table == 5] = 6
    with pytest.raises(AssertionError, match="instances"):
        merge_scale.require_right(np.unique(table, return_inverse=True)[1].astype(np.uint64) + 1, fragments)
