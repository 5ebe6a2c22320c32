from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.arrays import Array
from pipeline.errors import BadInput, Unreadable
from pipeline.geometry import Box
from pipeline.store import volume as volume_module
from pipeline.store.formats import Description
from pipeline.store.formats.precomputed import create_precomputed
from pipeline.store.volume import Volume, open_volume


def zarr_array(path: Path, shape: tuple[int, ...] = (16, 16, 16), **how: Any) -> str:
    array = zarr.create_array(path, shape=shape, chunks=(8,) * len(shape), dtype="uint8", **how)
    if all(shape):
        array[...] = np.random.default_rng(1).integers(1, 256, shape, dtype=np.uint8)
    return str(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_torn_zarr_chunk_names_the_volume_and_the_box(
    zarr_format: int, compressors: str | None, keep: float, tmp_path: Path
) -> None:
    address = zarr_array(tmp_path / "v.zarr", zarr_format=zarr_format, compressors=compressors)
    chunk = tmp_path / "v.zarr" / ("1.0.1" if zarr_format == 2 else "c/1/0/1")
    chunk.write_bytes(chunk.read_bytes()[: int(keep * chunk.stat().st_size)])
    volume = open_volume(address)
    assert volume.read(Box((0, 0, 0), (8, 16, 16))).all()
    box = Box((4, 0, 8), (12, 8, 16))
    with pytest.raises(Unreadable, match=r"v\.zarr \[4:12,0:8,8:16\]: the stored voxels must be readable") as caught:
        volume.read(box)
    assert (caught.value.path, caught.value.box) == (address, box)


def test_a_torn_precomputed_chunk_names_the_volume_and_the_box(tmp_path: Path) -> None:
    create_precomputed(str(tmp_path / "v"), (16, 16, 16), "uint8", (8.0, 8.0, 8.0), (0.0, 0.0, 0.0), (8, 8, 8), "image")
    volume = open_volume(str(tmp_path / "v"))
    volume.write(volume.box, np.random.default_rng(1).integers(1, 256, (16, 16, 16), dtype=np.uint8))
    (chunk,) = (tmp_path / "v" / "8_8_8").glob("8-16_0-8_0-8*")
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(BadInput, match=r"\[0:8,0:16,0:16\]: the stored voxels must be readable"):
        volume.read(Box((0, 0, 0), (8, 16, 16)))


@pytest.mark.parametrize("name", ["none.tif", "none.zarr", "none", "none.h5:raw", "folder/none.tif"])
def test_a_path_where_nothing_is_gives_one_refusal(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none"):
        open_volume(str(tmp_path / name))


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(b"NRRD0004")
    with pytest.raises(BadInput, match=r"no volume is recognised.*zarr.*precomputed.*TIFF.*HDF5"):
        open_volume(str(tmp_path / "v.nrrd"))


def test_metadata_that_are_no_json_are_refused(tmp_path: Path) -> None:
    zarr_array(tmp_path / "v.zarr")
    (tmp_path / "v.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node')
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(str(tmp_path / "v.zarr"))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "info").write_text('{"scales": [')
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(str(tmp_path / "p"))


def test_an_info_file_without_scales_is_refused(tmp_path: Path) -> None:
    (tmp_path / "info").write_text(json.dumps({"num_channels": 1, "type": "image", "data_type": "uint8"}))
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize("shape", [(16, 16), (2, 16, 16, 16)])
def test_a_wrong_rank_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="three axes"):
        open_volume(zarr_array(tmp_path / "v.zarr", shape))


def test_an_empty_extent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one voxel"):
        open_volume(zarr_array(tmp_path / "v.zarr", (0, 16, 16)))


def test_a_voxel_size_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    create_precomputed(str(tmp_path), (16, 16, 16), "uint8", (30.0, 8.0, 8.0), (0.0, 0.0, 0.0), (8, 8, 8), "image")
    with pytest.raises(BadInput, match=r"8x8x30 nm.*contradicts the file, which states 30x8x8 nm"):
        open_volume(str(tmp_path), (8.0, 8.0, 30.0))
    assert open_volume(str(tmp_path), (30.1, 8.0, 8.0)).voxel_size_nm == (30.0, 8.0, 8.0)


@pytest.mark.parametrize("crop", ["[0:17,:,:]", "[:,5:5,:]", "[:,:,9:3]", "[20:30,:,:]"])
def test_a_crop_out_of_range_or_empty_is_refused(crop: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must lie inside the volume"):
        open_volume(zarr_array(tmp_path / "v.zarr") + crop)


@pytest.mark.parametrize("crop", ["[0:4]", "[0:4,0:4,0-4]", "[1,2,3]"])
def test_a_malformed_crop_is_refused(crop: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a crop is"):
        open_volume(zarr_array(tmp_path / "v.zarr") + crop)


class _Store:
    """A handle whose first reads fail."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    def read(self, box: Box) -> Array:
        if self.failures:
            raise self.failures.pop(0)
        return np.ones(box.shape, np.uint8)

    def write(self, box: Box, array: Array) -> None:
        raise NotImplementedError


def _volume(monkeypatch: pytest.MonkeyPatch, store: object) -> Volume:
    monkeypatch.setattr(volume_module, "_opened", lambda *address: store)
    monkeypatch.setattr(volume_module, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    description = Description((4, 4, 4), "uint8", (4, 4, 4))
    return Volume("s3://bucket/v", "", "zarr", description.shape, description.dtype, description.chunks)


def test_a_reset_connection_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = _volume(monkeypatch, _Store(ConnectionResetError("reset"), TimeoutError("slow"), ConnectionError("gone")))
    assert volume.read(volume.box).all()


def test_a_store_that_stays_away_keeps_its_kind_of_error_and_names_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = _volume(monkeypatch, _Store(*[ConnectionResetError("reset")] * 4))
    with pytest.raises(ConnectionResetError, match=r"s3://bucket/v \[0:4,0:4,0:4\]: reset"):
        volume.read(volume.box)


def test_a_store_that_gives_too_few_voxels_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(_Store):
        def read(self, box: Box) -> Array:
            return np.ones((2, 4, 4), np.uint8)

    volume = _volume(monkeypatch, Short())
    with pytest.raises(BadInput, match=r"gave \(2, 4, 4\) voxels for \(4, 4, 4\)"):
        volume.read(volume.box)


def test_a_programming_error_is_not_dressed_up_as_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = _volume(monkeypatch, _Store(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        volume.read(volume.box)
