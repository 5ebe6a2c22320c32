from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store import convert as convert_module
from pipeline.store.convert import convert
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume

EXTENT = (70, 45, 131)
SIZE = (30.0, 8.5, 8.0)
OFFSET = (60.0, -17.0, 24.0)
TARGETS = ["copy.zarr", "copy", "copy.precomputed", "precomputed://copy", "copy.tif", "copy.h5", "copy.h5:volumes/raw"]


def source(path: Path, dtype: str = "uint8", size: Any = SIZE) -> Volume:
    ome_zarr.create(str(path), EXTENT, (96, 64, 160), (32, 32, 32), dtype, size, OFFSET)
    volume = open_volume(str(path))
    volume.write(volume.box, np.random.default_rng(9).integers(0, 2**7, EXTENT).astype(dtype))
    return volume


def target(folder: Path, name: str) -> str:
    prefix = "precomputed://" if name.startswith("precomputed://") else ""
    return f"{prefix}{folder / name.removeprefix(prefix)}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_volume_keeps_its_voxels_dtype_and_size_in_every_target(name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr")
    copy = convert(volume, target(tmp_path / "new" / "folder", name))
    assert (copy.shape, copy.dtype) == (EXTENT, "uint8")
    assert copy.voxel_size_nm == pytest.approx(SIZE, rel=1e-12)
    assert copy.offset_nm == ((0.0, 0.0, 0.0) if name.endswith(".tif") else pytest.approx(OFFSET))
    np.testing.assert_array_equal(copy.read(copy.box), volume.read(volume.box))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [
        Path(name.split(":")[0] or "copy").name or "copy"
    ] or name.startswith("precomputed")
    assert not list((tmp_path / "new" / "folder").glob(".*"))


@pytest.mark.parametrize("dtype", ["bool", "uint16", "int16", "uint32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("name", ["copy.zarr", "copy.precomputed", "copy.tif", "copy.h5"])
def test_every_dtype_survives_or_is_refused(dtype: str, name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", dtype)
    if dtype == "float64" and name == "copy.precomputed":
        with pytest.raises(BadInput, match="precomputed stores"):
            convert(volume, target(tmp_path, name))
        return
    copy = convert(volume, target(tmp_path, name))
    assert copy.dtype == ("uint8" if (dtype, name) == ("bool", "copy.precomputed") else dtype)
    assert copy.voxel_size_nm == pytest.approx(SIZE)
    np.testing.assert_array_equal(copy.read(copy.box), volume.read(volume.box))


def test_a_crop_is_converted_with_its_own_offset(tmp_path: Path) -> None:
    source(tmp_path / "v.zarr")
    crop = open_volume(f"{tmp_path / 'v.zarr'}[10:30,:,5:100]")
    copy = convert(crop, str(tmp_path / "copy.precomputed"))
    assert copy.offset_nm == (360.0, -17.0, 64.0)
    np.testing.assert_array_equal(copy.read(copy.box), crop.read(crop.box))


def test_blocks_are_reported_one_by_one_and_none_is_the_whole_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = source(tmp_path / "v.zarr")
    seen: list[tuple[int, int]] = []
    read: list[Box] = []
    original = Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box: read.append(box) or original(self, box))
    convert(volume, str(tmp_path / "copy.zarr"), (64, 128, 128), lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in (1, 2, 3, 4)]
    assert max(box.size for box in read) == 64 * 45 * 128


def test_a_tiff_is_written_slab_by_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SLAB_BYTES", 33 * 45 * 131)
    volume = source(tmp_path / "v.zarr")
    seen: list[tuple[int, int]] = []
    convert(volume, str(tmp_path / "copy.tif"), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif"), volume.read(volume.box))
    with tifffile.TiffFile(tmp_path / "copy.tif") as file:
        assert file.is_bigtiff


def test_a_single_slice_stays_a_volume(tmp_path: Path) -> None:
    source(tmp_path / "v.zarr")
    copy = convert(open_volume(f"{tmp_path / 'v.zarr'}[5:6,:,:]"), str(tmp_path / "copy.tif"))
    assert copy.shape == (1, 45, 131)
    assert copy.voxel_size_nm == SIZE


def test_what_others_read_is_what_was_meant(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr")
    array = volume.read(volume.box)
    convert(volume, str(tmp_path / "copy.zarr"))
    group = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    assert group.attrs["ome"]["multiscales"][0]["name"] == "copy.zarr"  # type: ignore[index,call-overload]
    convert(volume, str(tmp_path / "copy.h5"))
    with h5py.File(tmp_path / "copy.h5") as file:
        np.testing.assert_array_equal(file["volume"][...], array)
        assert file["volume"].attrs["resolution"].tolist() == list(SIZE)
        assert file["volume"].attrs["element_size_um"].tolist() == pytest.approx([0.03, 0.0085, 0.008])


@pytest.mark.parametrize("name", ["copy.zarr", "copy.precomputed", "copy.tif", "copy.h5"])
def test_an_existing_target_is_never_touched(name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr")
    if name in ("copy.tif", "copy.h5"):
        (tmp_path / name).write_text("precious")
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("precious")
    with pytest.raises(BadInput, match=r"must not exist.*never overwrites"):
        convert(volume, str(tmp_path / name))
    assert [path.read_text() for path in [tmp_path / name, *(tmp_path / name).glob("*")] if path.is_file()] == [
        "precious"
    ]


@pytest.mark.parametrize("name", ["copy.zarr", "copy.precomputed"])
def test_an_empty_folder_is_a_fine_target(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert convert(source(tmp_path / "v.zarr"), str(tmp_path / name)).shape == EXTENT


@pytest.mark.parametrize("name", ["copy.zarr", "copy.precomputed", "copy.tif", "copy.h5"])
def test_an_interrupted_conversion_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(volume, str(tmp_path / name), progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["v.zarr"]
    assert convert(volume, str(tmp_path / name)).shape == EXTENT


def test_what_a_killed_conversion_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".copy.zarr.teramito-partial" / "copy.zarr"
    left.mkdir(parents=True)
    (left / "zarr.json").write_text("half")
    convert(source(tmp_path / "v.zarr"), str(tmp_path / "copy.zarr"))
    assert not left.exists()


def test_a_block_that_cuts_chunks_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"multiple of the chunk \(64, 128, 128\).*nearest legal block is \(64, 128, 256\)"
    ):
        convert(source(tmp_path / "v.zarr"), str(tmp_path / "copy.zarr"), (50, 100, 250))


def test_precomputed_needs_a_voxel_size_and_zarr_does_not(tmp_path: Path) -> None:
    volume = source(tmp_path / "v.zarr", size=None)
    with pytest.raises(BadInput, match="precomputed needs the voxel size"):
        convert(volume, str(tmp_path / "copy.precomputed"))
    assert convert(volume, str(tmp_path / "copy.zarr")).voxel_size_nm is None


@pytest.mark.parametrize("name", ["s3://bucket/copy.tif", "s3://bucket/copy.h5"])
def test_tiff_and_hdf5_are_written_locally_alone(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="written locally"):
        convert(source(tmp_path / "v.zarr"), name)
