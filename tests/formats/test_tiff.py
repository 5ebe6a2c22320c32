from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.formats import tiff
from pipeline.store.volume import open_volume

DATA = os.environ.get("TERAMITO_DATA", "")


def stack(dtype: str = "uint8", shape: tuple[int, int, int] = (6, 40, 50)) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2, shape).astype(dtype) * np.arange(50).astype(dtype)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int16", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_dtype_and_byte_order_reads_native(
    dtype: str, byteorder: str, compression: str | None, tmp_path: Path
) -> None:
    array = stack(dtype)
    tifffile.imwrite(tmp_path / "v.tif", array, byteorder=byteorder, compression=compression, photometric="minisblack")
    volume = open_volume(str(tmp_path / "v.tif"))
    found = volume.read(Box((1, 3, 5), (4, 37, 49)))
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array[1:4, 3:37, 5:49])


def test_imagej_states_its_voxel_size_in_microns(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "v.tif", stack(), imagej=True, resolution=(125, 100),
        metadata={"spacing": 0.03, "unit": "um", "axes": "ZYX"},
    )  # fmt: skip
    assert open_volume(str(tmp_path / "v.tif")).voxel_size_nm == pytest.approx((30.0, 10.0, 8.0))


def test_imagej_without_a_unit_states_no_voxel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(1, 1), metadata={"axes": "ZYX"})
    assert open_volume(str(tmp_path / "v.tif")).voxel_size_nm is None


def test_ome_tiff_states_its_voxel_size_in_any_unit(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 8.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.008}
    metadata |= {"PhysicalSizeZ": 0.00003, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "v.ome.tif", stack(), metadata=metadata, compression="zlib")
    assert open_volume(str(tmp_path / "v.ome.tif")).voxel_size_nm == pytest.approx((30.0, 8.0, 8.0))


def test_a_plain_tiff_states_no_voxel_size_and_takes_the_users(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", stack(), photometric="minisblack")
    assert open_volume(str(tmp_path / "v.tif")).voxel_size_nm is None
    assert open_volume(str(tmp_path / "v.tif"), (30.0, 8.0, 8.0)).voxel_size_nm == (30.0, 8.0, 8.0)


def test_slices_stand_in_natural_order_of_their_names(tmp_path: Path) -> None:
    for z in (0, 1, 2, 9, 10, 11, 100):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.full((4, 5), z, np.uint8))
    volume = open_volume(str(tmp_path))
    assert volume.read(volume.box)[:, 0, 0].tolist() == [0, 1, 2, 9, 10, 11, 100]


def test_more_slices_than_files_are_kept_open_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "OPEN_SLICES", 3)
    for z in range(8):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.full((4, 5), z, np.uint8), compression="zlib")
    volume = open_volume(str(tmp_path))
    assert volume.read(volume.box)[:, 1, 1].tolist() == list(range(8))
    assert volume.read(volume.box)[:, 1, 1].tolist() == list(range(8))


def test_the_first_odd_slice_is_named(tmp_path: Path) -> None:
    for z in range(4):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.zeros((4, 5), np.uint16 if z == 2 else np.uint8))
    with pytest.raises(BadInput, match=r"s2\.tif.*must be like the first, \(4, 5\) uint8.*uint16"):
        open_volume(str(tmp_path))
    tifffile.imwrite(tmp_path / "s2.tif", np.zeros((4, 6), np.uint8))
    with pytest.raises(BadInput, match=r"s2\.tif.*\(4, 6\)"):
        open_volume(str(tmp_path))


def test_side_by_side_blocks_decode_a_page_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "v.tif", stack(), compression="zlib", photometric="minisblack", rowsperstrip=40)
    decoded = []
    original = tiff.TiffPlanes._segment
    monkeypatch.setattr(
        tiff.TiffPlanes, "_segment", lambda self, z, index: decoded.append(z) or original(self, z, index)
    )
    volume = open_volume(str(tmp_path / "v.tif"))
    for x in range(0, 50, 10):
        volume.read(Box((2, 0, x), (4, 40, x + 10)))
    assert decoded == [2, 3]


def test_only_the_tiles_a_box_needs_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "v.tif", stack(), compression="zlib", photometric="minisblack", tile=(16, 16))
    decoded = []
    original = tiff.TiffPlanes._segment
    monkeypatch.setattr(
        tiff.TiffPlanes, "_segment", lambda self, z, index: decoded.append((z, index)) or original(self, z, index)
    )
    open_volume(str(tmp_path / "v.tif")).read(Box((2, 17, 17), (3, 20, 40)))
    assert decoded == [(2, 5), (2, 6)]


def test_the_cache_of_decoded_pages_stays_within_its_bytes() -> None:
    cache = tiff.SegmentCache(limit_bytes=100)
    for key in range(10):
        cache.get(key, lambda: np.zeros(40, np.uint8))
    assert list(cache._entries) == [8, 9]
    assert cache.get("huge", lambda: np.ones(1000, np.uint8)).sum() == 1000
    assert not cache._entries


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 40, 50, 3), np.uint8), "S: colours"),
        (np.zeros((40, 50), np.uint8), r"shape is \(40, 50\)"),
        (np.zeros((2, 3, 40, 50), np.uint8), r"shape is \(2, 3, 40, 50\)"),
    ],
)
def test_what_is_no_stack_of_grey_pages_is_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    with pytest.raises(BadInput, match=message):
        open_volume(str(tmp_path / "v.tif"))


def test_pages_of_two_shapes_in_one_file_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        for shape in ((4, 5), (4, 5), (4, 6)):
            writer.write(np.zeros(shape, np.uint8), metadata=None)
    with pytest.raises(BadInput, match="pages of one shape"):
        open_volume(str(tmp_path / "v.tif"))


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_file_is_refused_when_it_is_opened(keep: float, compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    noise = np.random.default_rng(5).integers(0, 256, (6, 40, 50), dtype=np.uint8)
    tifffile.imwrite(path, noise, compression=compression, photometric="minisblack")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(BadInput, match=r"v\.tif"):
        open_volume(str(path))


def test_a_page_that_rotted_names_the_volume_and_the_box(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, stack(), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    volume = open_volume(str(path))
    volume.read(Box((0, 0, 0), (3, 40, 50)))
    with pytest.raises(BadInput, match=r"v\.tif \[2:5,0:40,0:50\]: the stored voxels must be readable"):
        volume.read(Box((2, 0, 0), (5, 40, 50)))


def test_garbage_named_tif_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.tif").write_bytes(os.urandom(5000))
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(str(tmp_path / "v.tif"))


def test_a_tiff_is_read_only(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", stack(), photometric="minisblack")
    with pytest.raises(BadInput, match="read only"):
        open_volume(str(tmp_path / "v.tif")).write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8))


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TERAMITO_DATA does not name the folder of real EM volumes")
def test_a_box_of_a_real_jpeg_xl_stack_is_read_in_place() -> None:
    path = Path(DATA) / "lucchi" / "train_raw.tif"
    volume = open_volume(str(path))
    assert (volume.shape, volume.dtype) == ((165, 768, 1024), "uint8")
    found = volume.read(Box((80, 100, 200), (83, 164, 264)))
    whole = tifffile.imread(path, key=range(80, 83))
    np.testing.assert_array_equal(found, whole[:, 100:164, 200:264])
