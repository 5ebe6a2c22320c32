"""A restoration in numbers and pictures: exact sums, slices worth a look, the right pixels beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.denoise.ops.restore import RestoreOp
from pipeline.denoise.sheet import LONGEST, SHORTEST, chosen_places, picture, write_restored_sheet
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.denoise.summary import headline, percent, restoration_summary, restored_totals
from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale
from pipeline.model.restorer_spec import RestorerSpec
from pipeline.store.tables import BlockTables
from pipeline.store.volume import Volume

SHAPE = (12, 200, 230)
SIZE = (40.0, 8.0, 8.0)
BLOCK = (5, 64, 96)
SPEC = RestorerSpec(
    name="two-neighbours", kind="interpolation", multiple=32, weights="none.safetensors", sha256="0" * 64
)
Bool = NDArray[np.bool_]


def summary_of(stage: RestoreStage, cells: dict[str, int] | None = None) -> dict[str, Any]:
    return restoration_summary(stage, restored_totals(stage), cells)


def patchy(shape: Vec3 = SHAPE) -> Bool:
    """A whole slice, three slices in a row, a speck in the last slice, another in the first."""
    replaced = np.zeros(shape, bool)
    replaced[2] = True
    replaced[5:8, 40:90, 50:120] = True
    replaced[-1, 150:160, 200:212] = True
    replaced[0, 30:50, 3:20] = True
    return replaced


def restoration(
    folder: Path,
    replaced: Bool,
    left: Bool | None = None,
    block: Vec3 = BLOCK,
    channels: int = 2,
    dtype: str = "uint8",
) -> RestoreStage:
    """A finished restoration: raw is noise, and what is replaced is darker by half."""
    shape: Vec3 = replaced.shape  # type: ignore[assignment]
    grid = BlockGrid(shape, block)
    raw = np.random.default_rng(0).integers(80, 220, shape).astype(np.uint8)
    like = Volume("", "", "zarr", shape, "uint8", block, SIZE)
    dtypes = {"raw": dtype, "restored": "uint8", "replaced": "uint8"}
    volumes = {name: stored_volume(str(folder / name), grid, kind, like, block) for name, kind in dtypes.items()}
    create_arrays(list(volumes.values()), grid)
    arrays = {"raw": raw.astype(dtype), "restored": np.where(replaced, raw // 2, raw)}
    arrays["replaced"] = replaced.astype(np.uint8) * 255
    tables = BlockTables(folder / "tables" / "restore")
    for each in grid:
        at = each.core.slices()
        for name, array in arrays.items():
            volumes[name].write(each.core, array[at].astype(dtypes[name]))
        counts = [np.zeros_like(replaced) if part is None else part for part in (replaced, left)]
        done, kept = (np.count_nonzero(part[at], axis=(1, 2)) for part in counts)
        z = np.flatnonzero(done + kept)
        tables.write(each.number, {"z": z + each.core.start[0], "replaced": done[z], "left": kept[z]})
    return RestoreStage(
        source=volumes["raw"],
        upstream="",
        grey=GreyScale(),
        damage=None,
        damage_fingerprint="",
        slices=None,
        restored=volumes["restored"],
        replaced=volumes["replaced"],
        tables=tables,
        grid=grid,
        op=RestoreOp(shape, (64, 64), (16, 16), 32, channels, pixel=SIZE[1:]),
        model=SPEC.name,
        spec=SPEC,
    )


@pytest.mark.parametrize("block", [(5, 64, 96), (12, 200, 230), (1, 33, 57)])
def test_the_numbers_are_exact_and_the_same_for_every_block_shape(block: Vec3, tmp_path: Path) -> None:
    left = np.zeros(SHAPE, bool)
    left[9:11, :2, 60:63] = True
    summary = summary_of(restoration(tmp_path, patchy(), left, block), {"missing": 7, "blur": 0})
    assert summary == {
        "restorer": "two-neighbours",
        "replaced_voxels": 200 * 230 + 3 * 50 * 70 + 120 + 340,
        "left_voxels": 12,
        "share": np.mean(patchy()),
        "slices": 6,
        "whole_slices": 1,
        "whole_slices_z": [2],
        "slices_left": 2,
        "slices_left_z": [9, 10],
        "damage_cells": {"missing": 7, "blur": 0},
    }
    assert json.loads(json.dumps(summary)) == summary
    said = "56,960 voxels replaced in 6 slices, 10.3 % of the volume; 12 damaged voxels left as imaged"
    assert headline(summary) == said


def test_a_slice_is_a_whole_one_above_nine_tenths_of_its_area(tmp_path: Path) -> None:
    replaced = np.zeros((3, 20, 10), bool)
    replaced[0, :18] = replaced[1, :18] = replaced[1, 18, 0] = True
    assert summary_of(restoration(tmp_path, replaced, block=(2, 8, 8)))["whole_slices_z"] == [1]


def test_of_many_slices_fifty_are_named_and_all_counted(tmp_path: Path) -> None:
    everything = np.ones((60, 4, 4), bool)
    summary = summary_of(restoration(tmp_path, everything, everything, (7, 4, 4)))
    for what in ("whole_slices", "slices_left"):
        assert summary[what] == 60
        assert summary[f"{what}_z"] == list(range(50))


def test_a_block_without_its_table_is_named(tmp_path: Path) -> None:
    stage = restoration(tmp_path, patchy())
    (tmp_path / "tables" / "restore" / "00000" / "4.arrays").unlink()
    with pytest.raises(BadInput, match=r"4\.arrays.*must be there whole.*restore\.ledger"):
        summary_of(stage)
    with pytest.raises(BadInput, match=r"4\.arrays"):
        write_restored_sheet(stage, tmp_path / "sheet.png", restored_totals(stage))
    assert not (tmp_path / "sheet.png").exists()


def test_where_nothing_was_replaced_there_is_no_sheet(tmp_path: Path) -> None:
    stage = restoration(tmp_path, np.zeros(SHAPE, bool), patchy())
    (tmp_path / "sheet.png").write_bytes(b"of a restoration before")
    assert write_restored_sheet(stage, tmp_path / "sheet.png", restored_totals(stage)) is False
    assert not (tmp_path / "sheet.png").exists()
    said = headline(summary_of(stage))
    assert said == "Nothing replaced; 56,960 damaged voxels left as imaged"


def test_examples_go_from_the_largest_to_the_smallest_one_of_each_row_of_slices(tmp_path: Path) -> None:
    sums = restored_totals(restoration(tmp_path, patchy()))
    assert sums.largest[5] == sums.largest[6] == sums.largest[7]
    assert chosen_places(sums, 6) == [2, 5, 0, 11]
    assert chosen_places(sums, 2) == [2, 11]
    assert chosen_places(sums, 1) == [2]


def test_where_all_slices_are_one_row_several_are_shown_and_not_always_the_same_block(tmp_path: Path) -> None:
    sums = restored_totals(restoration(tmp_path, np.ones((20, 64, 64), bool), block=(20, 16, 16)))
    slices = chosen_places(sums, 6)
    assert len(set(slices)) == 6
    assert len({int(sums.block[z]) for z in slices}) > 2
    assert sums.largest.tolist() == [256] * 20


def test_a_picture_shows_the_sound_slices_on_both_sides_of_the_gap(tmp_path: Path) -> None:
    stage = restoration(tmp_path, patchy())
    raw, restored = (volume.read(volume.box) for volume in (stage.source, stage.restored))
    one = picture(stage, 6, int(restored_totals(stage).block[6]))
    assert one.run == (5, 7)
    at = one.box.slices()[1:]
    for plane, expected in zip(one.planes, (raw[4], raw[6], restored[6], raw[8]), strict=True):
        assert plane is not None
        assert np.array_equal(plane, expected[at])
    assert np.array_equal(one.replaced, patchy()[6][at])


@pytest.mark.parametrize(("z", "missing"), [(0, 0), (11, 3)])
def test_at_the_ends_of_the_volume_one_side_is_blank_and_the_picture_stays_inside(
    z: int, missing: int, tmp_path: Path
) -> None:
    stage = restoration(tmp_path, patchy())
    one = picture(stage, z, int(restored_totals(stage).block[z]))
    assert [plane is None for plane in one.planes] == [number == missing for number in range(4)]
    assert one.run == (z, z)
    assert one.box.shape == (1, SHORTEST, SHORTEST)
    assert Box.of_shape(SHAPE).contains(one.box)
    assert one.replaced.sum() == patchy()[z].sum()


def test_a_restorer_of_single_slices_is_shown_between_the_next_ones(tmp_path: Path) -> None:
    stage = restoration(tmp_path, np.ones((5, 64, 64), bool), channels=1)
    assert picture(stage, 2, 0).run == (2, 2)


def test_a_large_region_is_cut_to_what_a_person_can_see(tmp_path: Path) -> None:
    replaced = np.zeros((1, 700, 900), bool)
    replaced[0, 100:690] = True
    stage = restoration(tmp_path, replaced, block=(1, 700, 900))
    assert picture(stage, 0, 0).box == Box((0, 139, 194), (1, 139 + LONGEST, 194 + LONGEST))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_sheet_is_a_picture_of_a_bearable_size(dtype: str, tmp_path: Path) -> None:
    from PIL import Image

    replaced = patchy((12, 400, 400))
    replaced[4], replaced[9] = True, True
    stage = restoration(tmp_path, replaced, block=(4, 256, 256), dtype=dtype)
    assert write_restored_sheet(stage, tmp_path / "sheet.png", restored_totals(stage))
    assert (tmp_path / "sheet.png").stat().st_size < 1_500_000
    with Image.open(tmp_path / "sheet.png") as image:
        assert 900 < image.width < 1200
        assert 1200 < image.height < 2000


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 1, 300), (3, 300, 2)])
def test_a_narrow_volume_is_drawn_too(shape: Vec3, tmp_path: Path) -> None:
    stage = restoration(tmp_path, np.ones(shape, bool), block=shape)
    assert write_restored_sheet(stage, tmp_path / "sheet.png", restored_totals(stage), most=2)


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100 %"), (0.2165, "21.6 %"), (0.01234, "1.2 %"), (0.00012, "0.012 %"), (2e-6, "less than 0.001 %")],
)
def test_shares_are_read_at_a_glance(share: float, said: str) -> None:
    assert percent(share) == said
