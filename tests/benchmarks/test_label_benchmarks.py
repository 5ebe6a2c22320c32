"""The benchmarks of labelling at scale run at a tiny size and check what they claim."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest

from benchmarks import label_peers, label_scaling, merge_scale, million_blocks
from benchmarks.label_run import Measured
from benchmarks.made_maps import all_seeds, made_maps, mirrored_maps
from benchmarks.simulated_fragments import Fragments
from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.instances.ops.merge import merge
from pipeline.store.volume import open_volume


def test_a_mirrored_tile_reads_as_if_it_had_been_stored(tmp_path: Path) -> None:
    maps = mirrored_maps(tmp_path, (40, 50, 36), (16, 24, 20))
    tile = np.load(maps.semantic.url)
    stored = np.pad(tile, ((0, 24), (0, 26), (0, 16)), "symmetric")
    assert stored.shape == maps.semantic.shape and tile.std() > 0
    for box in (maps.semantic.box, Box((3, 1, 19), (33, 49, 36)), Box((15, 24, 20), (17, 25, 21))):
        assert np.array_equal(maps.semantic.read(box), stored[box.slices()])


PEERS_PYTHON = Path(__file__).parents[2] / label_peers.PEERS_PYTHON


def test_the_comparison_gives_every_tool_the_same_seeds_and_counts_what_cc3d_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("igneous_ccl.py", "dask_image_label.py"):
        (scripts / name).write_text("import fake\n")
    found = {"seconds": {"faces": 1.0, "relabel": 2.0}}
    monkeypatch.setattr(label_peers, "SCRIPTS", scripts)
    (scripts / "fake.py").write_text(f"import json\nprint(json.dumps({found} | {{'components': 3}}))\n")
    tiny: dict[str, Any] = {"repeats": 1, "folder": tmp_path / "kept", "workers": (0,), "results": tmp_path}
    with pytest.raises(AssertionError, match=r"cc3d in memory: .*igneous, 1 worker, tasks of 128.3: 3"):
        label_peers.main((64, 64, 32), (32, 32, 32), python=Path(sys.executable), dask_image=True, **tiny)
    rows = label_peers.main((64, 64, 32), (32, 32, 32), python=tmp_path / "no", **tiny)
    assert rows == json.loads((tmp_path / "label_peers_64.json").read_text())["rows"]
    whole, ours = rows
    assert (whole["what"], ours["what"]) == ("cc3d in memory", "teramito, 2 threads")
    assert whole["instances"] == ours["instances"] > 0
    assert ours["speedup"] == 1 and whole["speedup"] > 0
    stored = [open_volume(str(tmp_path / "kept" / "seeds" / name)) for name in ("zarr", "precomputed")]
    seeds = [volume.read(volume.box) for volume in stored]
    assert np.array_equal(*seeds) and 0.02 < seeds[0].mean() < 0.2
    assert cc3d.connected_components(seeds[0], connectivity=6).max() == whole["instances"]


@pytest.mark.parametrize("peer", label_peers.peers([32], dask_image=True)[::2], ids=lambda peer: peer.name)
@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="the peers' environment is not there: make peers")
def test_a_peer_finds_the_components_of_the_seeds(tmp_path: Path, peer: label_peers.Peer) -> None:
    made = made_maps(tmp_path / "maps", (64, 64, 32), (32, 32, 32))
    found = all_seeds(made.maps, label_peers.PLAIN, made.grid)
    stored, measured = label_peers.stored_seeds(tmp_path / "seeds", made, found), Measured()
    label_peers.run_peer(PEERS_PYTHON, peer, stored, tmp_path / "target", measured)
    assert measured.instances == cc3d.connected_components(found, connectivity=6).max()
    assert measured.median("label") > 0


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
    assert all(row["us_a_fragment"] > 0 and row["peak_mb"][0] > 10 for row in rows)


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


def test_the_benchmark_of_many_blocks_takes_all_of_them_through_plan_ledgers_and_offsets(tmp_path: Path) -> None:
    rows = million_blocks.main(4, (64, 64, 64), tmp_path)
    assert rows == json.loads((tmp_path / "million_blocks.json").read_text())["rows"]
    assert [row["what"].split(",")[0] for row in rows] == [
        "plan", "label", "ledger opened again", "blocks that are pending", "offsets", "stitch", "status"
    ]  # fmt: skip
    assert all(row["blocks"] == 64 and row["seconds"] >= 0 for row in rows)
