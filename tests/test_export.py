from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.errors import BadInput
from pipeline.export.downsample import downsample
from pipeline.export.levels import ExportLevel, Layer, copy_block, create_layers, export_levels
from pipeline.export.neuroglancer import neuroglancer_state
from pipeline.export.probe import probe
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats import ome_zarr
from pipeline.store.formats.writer import KEY, Writer, writer_of_mip
from pipeline.store.volume import Volume, open_volume

EXTENT: Vec3 = (19, 45, 70)
SIZE: FloatVec3 = (30.0, 8.0, 8.5)
CHUNK: Vec3 = (4, 8, 16)
BAD = [None, 4, [4, 8], [4, 8, 0], [4, 8, "16"], [4, 8, 16.0]]  # no shape of a block


def source(path: Path, dtype: str, offset_nm: FloatVec3 = (0.0, 0.0, 0.0), values: int = 250) -> Volume:
    """A stored intermediate array as a run leaves it: padded to whole blocks, with a true extent."""
    ome_zarr.create(str(path), EXTENT, (32, 64, 128), (8, 16, 32), dtype, SIZE, offset_nm)
    volume = open_volume(str(path))
    volume.write(volume.box, np.random.default_rng(11).integers(0, values, EXTENT).astype(dtype))
    return volume


def exported(base: Path, layers: list[Layer]) -> list[ExportLevel]:
    """Plan, create and copy everything, the levels in order and their blocks backwards."""
    levels = export_levels(str(base), layers, CHUNK)
    create_layers(levels)
    for level in levels:
        for number in reversed(range(len(level.grid))):
            copy_block(level, level.grid[number])
    return levels


@pytest.mark.parametrize("offset_nm", [(0.0, 0.0, 0.0), (90.0, 24.0, -42.5), (-30.0, 8.0, 8.5)])
@pytest.mark.parametrize(("kind", "dtype"), [("image", "uint8"), ("image", "uint16"), ("segmentation", "uint64")])
def test_every_mip_equals_the_downsampled_whole_volume(
    kind: str, dtype: str, offset_nm: FloatVec3, tmp_path: Path
) -> None:
    volume = source(tmp_path / "v.zarr", dtype, offset_nm, values=5)
    levels = exported(tmp_path / "out", [Layer("layer", kind, volume)])  # type: ignore[arg-type]
    assert len(levels) > 3
    wanted = volume.read(volume.box)
    for level in levels:
        wanted = downsample(wanted, level.factor, level.kind, level.lead)
        assert level.target.shape == wanted.shape
        stored = CloudVolume(f"file://{tmp_path / 'out' / 'layer'}", mip=level.mip, progress=False, fill_missing=False)
        np.testing.assert_array_equal(np.asarray(stored[:, :, :])[..., 0].T, wanted)


@pytest.mark.parametrize("offset_nm", [(90.0, 24.0, -42.5), (-30.0, 8.0, 8.5)])
def test_a_coarse_voxel_stands_where_its_fine_voxels_stand(offset_nm: FloatVec3, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8", offset_nm)
    levels = export_levels(str(tmp_path / "out"), [Layer("raw", "image", volume)], CHUNK)
    for level in levels[1:]:
        for axis in range(3):
            fine = level.source.offset_nm[axis] - level.lead[axis] * level.source.voxel_size_nm[axis]  # type: ignore[index]
            assert level.target.offset_nm[axis] == pytest.approx(fine)


def test_each_level_of_a_runs_layers_states_the_stage_and_the_blocks_that_write_it(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    levels = export_levels(str(tmp_path), [Layer("raw", "image", volume), Layer("seg", "image", volume)], CHUNK)
    create_layers(levels, [f"export-{level.layer}-mip{level.mip}" for level in levels])
    for level in levels:
        found = writer_of_mip(tmp_path / level.layer, str(level.mip))
        assert found == Writer(f"export-{level.layer}-mip{level.mip}", level.layer, level.grid)
    assert writer_of_mip(tmp_path / "seg", "") == writer_of_mip(tmp_path / "seg", "0")
    assert writer_of_mip(tmp_path / "seg", "99") is writer_of_mip(tmp_path / "none", "") is None
    create_layers(levels)
    assert writer_of_mip(tmp_path / "seg", "") is None


@pytest.mark.parametrize("change", [{"stage": 1}, {"array": None}, *({"block_zyx": shape} for shape in BAD)])
def test_half_a_statement_of_a_writer_is_none(change: dict[str, object], tmp_path: Path) -> None:
    whole = Writer("export-raw-mip0", "raw", BlockGrid(EXTENT, CHUNK)).stated()
    for stated, is_one in ((whole, True), (whole | change, False), ({}, False), (None, False)):
        (tmp_path / "info").write_text(json.dumps({KEY: [stated]}))
        assert (writer_of_mip(tmp_path, "") is not None) is is_one


def test_a_level_is_planned_as_it_is_later_described(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8", (90.0, 24.0, -42.5))
    levels = export_levels(str(tmp_path / "out"), [Layer("raw", "image", volume)], CHUNK)
    create_layers(levels)
    assert open_volume(str(tmp_path / "out" / "raw")) == Volume(
        str(tmp_path / "out" / "raw"), "", "precomputed", EXTENT, "uint8", CHUNK, SIZE, (90.0, 24.0, -42.5)
    )
    assert levels[0].target.offset_nm == (90.0, 24.0, -42.5)


def test_blocks_are_whole_chunks_and_levels_go_from_fine_to_coarse(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    levels = export_levels(
        str(tmp_path / "out"), [Layer("raw", "image", volume), Layer("seg", "segmentation", volume)], CHUNK
    )
    assert {level.grid.block for level in levels} == {(8, 16, 32)}
    assert [level.mip for level in levels if level.layer == "raw"] == list(range(len(levels) // 2))
    assert levels[1].source == levels[0].target
    assert {level.target.dtype for level in levels} == {"uint8", "uint64"}


def test_a_level_travels_as_a_small_pickle_and_works_on_arrival(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    levels = export_levels(str(tmp_path / "out"), [Layer("raw", "image", volume)], CHUNK)
    create_layers(levels)
    data = pickle.dumps(levels[0])
    assert len(data) < 2000
    arrived: ExportLevel = pickle.loads(data)
    assert arrived == levels[0]
    arrived(arrived.grid[0])
    assert arrived.target.read(arrived.grid[0].core).any()


def test_a_block_copied_twice_changes_nothing(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    levels = exported(tmp_path / "out", [Layer("raw", "image", volume)])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.gz")}
    copy_block(levels[1], levels[1].grid[3])
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.gz")} == before


def test_a_cropped_source_is_exported_where_it_lies(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    crop = open_volume(f"{volume.url}[3:19,5:40,7:66]")
    levels = exported(tmp_path / "out", [Layer("raw", "image", crop)])
    assert levels[0].target.offset_nm == (90.0, 40.0, 59.5)
    assert probe(crop, levels[0].target) == []


@pytest.mark.parametrize(
    "offset_nm", [(90.0, 24.0, -42.5), (15.0, 4.0, 4.25), (-15.0, 1.3, -4.25), (1e6 / 3, 7e5 / 3, 1.0)]
)
def test_the_probe_finds_nothing_in_a_faithful_export(offset_nm: FloatVec3, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8", offset_nm)
    levels = exported(tmp_path / "out", [Layer("raw", "image", volume)])
    assert probe(volume, levels[0].target, count=12, seed=5) == []


def test_the_probe_accepts_a_bool_mask_and_a_label_array(tmp_path: Path) -> None:
    mask, labels = source(tmp_path / "m.zarr", "bool", values=2), source(tmp_path / "l.zarr", "uint32")
    levels = exported(tmp_path / "out", [Layer("mask", "image", mask), Layer("seg", "segmentation", labels)])
    targets = {level.layer: level.target for level in levels if level.mip == 0}
    assert probe(mask, targets["mask"]) == []
    assert probe(labels, targets["seg"]) == []


def _with_info(folder: Path, **changes: object) -> None:
    info = json.loads((folder / "info").read_text())
    info["scales"][0] |= changes
    (folder / "info").write_text(json.dumps(info))


def test_the_probe_catches_swapped_axes_a_wrong_voxel_size_an_offset_a_value_and_a_hole(tmp_path: Path) -> None:
    cube = source(tmp_path / "v.zarr", "uint8").cropped(open_volume(str(tmp_path / "v.zarr")).box)
    cube = open_volume(f"{cube.url}[0:16,0:16,0:16]")
    level = exported(tmp_path / "out", [Layer("raw", "image", cube)])[0]
    folder = tmp_path / "out" / "raw"

    level.target.write(level.target.box, np.ascontiguousarray(cube.read(cube.box).transpose(2, 1, 0)))
    assert "voxels differ" in probe(cube, level.target)[0]
    for block in level.grid:
        copy_block(level, block)
    assert probe(cube, level.target) == []

    array = cube.read(cube.box)
    array[0, 0, 0] += 1
    level.target.write(level.target.box, array)
    assert "1 of" in probe(cube, level.target)[0]
    copy_block(level, level.grid[0])

    next((folder / "8.5_8_30").glob("0-16_0-8_0-4*")).unlink()
    assert "chunk is missing" in probe(cube, level.target)[0]
    copy_block(level, level.grid[0])

    _with_info(folder, resolution=[30, 8, 8.5])
    assert "voxel size" in probe(cube, level.target)[0]
    _with_info(folder, resolution=[8.5, 8, 30], size=[15, 16, 16])
    assert "extent" in probe(cube, level.target)[0]


def test_the_probe_catches_a_wrong_offset(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", "uint8")
    levels = exported(tmp_path / "out", [Layer("raw", "image", volume)])
    shifted = Volume(volume.url, "", "zarr", EXTENT, "uint8", volume.chunks, SIZE, (0.0, 0.0, 8.5))
    assert probe(shifted, levels[0].target)


def test_a_source_without_voxel_size_or_with_a_dtype_the_format_lacks_is_refused(tmp_path: Path) -> None:
    volume = Volume("/nowhere", "", "zarr", EXTENT, "uint8", CHUNK)
    with pytest.raises(BadInput, match="needs the voxel size"):
        export_levels("/out", [Layer("raw", "image", volume)])
    wide = Volume("/nowhere", "", "zarr", EXTENT, "float64", CHUNK, SIZE)
    with pytest.raises(BadInput, match="precomputed stores"):
        export_levels("/out", [Layer("raw", "image", wide)])


def test_the_neuroglancer_state_names_axes_units_and_layers() -> None:
    layers = {"raw": "image", "semantic": "image", "boundary": "image", "segmentation": "segmentation"}
    state = neuroglancer_state("https://host/run", layers, SIZE, (1.0, 2.0, 3.0))  # type: ignore[arg-type]
    assert state["dimensions"] == {"x": [8.5e-9, "m"], "y": [8e-9, "m"], "z": [3e-8, "m"]}
    assert state["position"] == [3.0, 2.0, 1.0]
    assert [layer["source"] for layer in state["layers"]] == [
        f"precomputed://https://host/run/{name}" for name in layers
    ]
    assert [layer.get("visible", True) for layer in state["layers"]] == [True, False, False, True]
    assert json.loads(json.dumps(state)) == state
