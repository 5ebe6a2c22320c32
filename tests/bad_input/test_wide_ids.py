"""Ids above 2^32 and 2^53 stay exact through every step, and are never put where they would not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Teramito
from numpy.typing import NDArray
from tiny_run import write_volume

from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.executor import SerialExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.export.levels import Layer, create_layers, export_levels
from pipeline.export.stage import ExportStage
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import runs
from pipeline.instances.ops.relabel import compact, relabel
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables, write_table
from pipeline.store.volume import Volume, open_volume

# Neighbours that float64, int32, uint32 and int64 would take for the same or for others.
IDS = np.array(
    [1, 2**32 - 1, 2**32, 2**32 + 1, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1], np.uint64
)
SHAPE = (8, 24, 33)


def _labels() -> NDArray[np.uint32]:
    """Boxes 1..11, side by side along x, in the first half of y."""
    labels = np.zeros(SHAPE, np.uint32)
    for number in range(len(IDS)):
        labels[1:7, 2:14, 3 * number : 3 * number + 3] = number + 1
    return labels


def _ids() -> NDArray[np.uint64]:
    return np.concatenate([np.zeros(1, np.uint64), IDS])[_labels()]


def _whole(address: str) -> NDArray[Any]:
    volume = open_volume(address)
    return volume.read(volume.box)


def test_the_ops_keep_them() -> None:
    np.testing.assert_array_equal(relabel(_labels(), IDS), _ids())
    local, present = compact(_ids())
    np.testing.assert_array_equal(present, IDS)
    np.testing.assert_array_equal(relabel(local, present), _ids())


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """The stage's result from block-local labels and a table of such ids, in four blocks."""
    folder = tmp_path_factory.mktemp("wide")
    grid = BlockGrid(SHAPE, (8, 12, 22))
    like = open_volume(write_volume(folder / "like", np.zeros(SHAPE, np.uint8)))
    labels = StoredLabels(BlockTables(folder / "labels"), grid)
    made = stored_volume(str(folder / "segmentation"), grid, "uint64", like, (8, 12, 22))
    create_if_missing(made, grid)
    counts, table = [], []
    for block in grid:
        local, present = compact(np.ascontiguousarray(_ids()[block.core.slices()]))
        labels.write(block.number, local, runs(local), {})
        counts.append(len(present))
        table.append(present)
    write_table(folder / "offsets.npy", np.concatenate([[0], np.cumsum(counts)]))
    write_table(folder / "table.npy", np.concatenate(table))
    stage = RelabelStage(labels, folder / "offsets.npy", folder / "table.npy", made, upstream="0", grid=grid)
    with Ledger(folder / "relabel.ledger", stage.name, stage.fingerprint, len(grid)) as ledger:
        run_stage(stage, ledger, SerialExecutor())
    return made


def test_the_segmentation_and_its_export_keep_them_at_every_mip(segmentation: Volume, tmp_path: Path) -> None:
    np.testing.assert_array_equal(segmentation.read(segmentation.box), _ids())
    levels = export_levels(str(tmp_path), [Layer("segmentation", "segmentation", segmentation)], (8, 8, 8))
    create_layers(levels)
    assert len(levels) > 1
    for level in levels:
        stage = ExportStage(level, upstream="0")
        with Ledger(tmp_path / f"{stage.name}.ledger", stage.name, stage.fingerprint, len(stage.grid)) as ledger:
            run_stage(stage, ledger, SerialExecutor())
        stored = level.target.read(level.target.box)
        assert set(np.unique(stored)) <= {np.uint64(0), *IDS}
        assert level.mip > 1 or (stored > 0).any()
    np.testing.assert_array_equal(_whole(f"precomputed://{tmp_path}/segmentation"), _ids())


@pytest.mark.parametrize("target", ["copy.zarr", "copy.tif", "copy.h5:labels", "copy.precomputed"])
def test_convert_keeps_them_in_every_format(
    target: str, segmentation: Volume, tmp_path: Path, teramito: Teramito
) -> None:
    address = str(tmp_path / target)
    assert teramito("convert", segmentation.url, address).code == 0
    found = _whole(address)
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, _ids())


def test_evaluate_tells_neighbouring_ids_apart(segmentation: Volume, tmp_path: Path, teramito: Teramito) -> None:
    truth = write_volume(tmp_path / "truth", _labels())
    said = teramito("evaluate", segmentation.url, truth, "--json", "--matches", str(tmp_path / "matches.csv"))
    assert said.code == 0, said.err
    assert (said.json["iou"], said.json["ap50_95"], said.json["instances_predicted"]) == (1.0, 1.0, len(IDS))
    matches = (tmp_path / "matches.csv").read_text()
    assert all(str(number) in matches for number in IDS.tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_in_a_float_volume_are_refused_for_they_may_be_rounded(
    dtype: str, segmentation: Volume, tmp_path: Path, teramito: Teramito
) -> None:
    rounded = write_volume(tmp_path / "rounded", _ids().astype(dtype))
    said = teramito("evaluate", rounded, segmentation.url)
    said.refuses("labels must be whole numbers", f"it holds {dtype}")
    said = teramito("evaluate", segmentation.url, rounded)
    said.refuses("labels must be whole numbers", f"it holds {dtype}")


def test_signed_ids_are_kept_and_negative_ones_refused(tmp_path: Path, teramito: Teramito) -> None:
    values = np.where(_ids() < 2**63, _ids(), 0).astype(np.int64)
    signed = write_volume(tmp_path / "signed", values)
    said = teramito("evaluate", signed, signed, "--json")
    assert json.loads(said.out)["instances_predicted"] == len(np.unique(values)) - 1
    values[0, 0, 0] = -(2**53) - 1
    negative = write_volume(tmp_path / "negative", values)
    teramito("evaluate", negative, signed).refuses("labels must be whole numbers", str(-(2**53) - 1))


def test_a_segmentation_as_an_image_to_segment_is_refused(
    segmentation: Volume, tmp_path: Path, teramito: Teramito
) -> None:
    said = teramito("run", "--input", segmentation.url, "--output", str(tmp_path / "out"))
    said.refuses("of dtype uint64", "an EM volume is uint8")
    said = teramito("instances", segmentation.url, segmentation.url, str(tmp_path / "out"))
    said.refuses("of dtype uint64", "a probability map is uint8 (0..255) or float (0..1)")
