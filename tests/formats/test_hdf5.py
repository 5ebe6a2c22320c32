from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.volume import open_volume


def written(path: Path, **arrays: np.ndarray) -> str:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return str(path)


def test_the_only_volume_of_a_file_needs_no_name(tmp_path: Path) -> None:
    address = written(tmp_path / "v.h5", raw=np.ones((3, 4, 5), np.uint8), names=np.arange(4))
    assert open_volume(address).read(Box((0, 0, 0), (3, 4, 5))).sum() == 60


def test_several_volumes_are_named_as_candidates(tmp_path: Path) -> None:
    address = written(tmp_path / "v.h5", raw=np.ones((3, 4, 5)), labels=np.ones((3, 4, 5), int))
    with pytest.raises(BadInput, match=r"it holds 2\. Name one after the file: :labels, :raw\."):
        open_volume(address)


def test_a_file_without_volumes_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it holds none"):
        open_volume(written(tmp_path / "v.h5", flat=np.ones((3, 4))))


def test_a_missing_or_flat_dataset_is_refused_with_the_candidates(tmp_path: Path) -> None:
    address = written(tmp_path / "v.h5", raw=np.ones((3, 4, 5)), flat=np.ones((3, 4)))
    with pytest.raises(BadInput, match=r"none of that name\. Name one after the file: :raw"):
        open_volume(f"{address}:row")
    with pytest.raises(BadInput, match=r"three axes.*\(3, 4\) float64"):
        open_volume(f"{address}:flat")


def test_leading_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    array = np.random.default_rng(6).random((1, 1, 3, 4, 5))
    volume = open_volume(written(tmp_path / "v.h5", raw=array))
    np.testing.assert_array_equal(volume.read(Box((1, 0, 2), (3, 4, 5))), array[0, 0, 1:3, :, 2:5])


@pytest.mark.parametrize(
    ("name", "value"),
    [("element_size_um", (0.03, 0.008, 0.0085)), ("resolution", (30.0, 8.0, 8.5)), ("voxel_size_nm", (30, 8, 8.5))],
)
def test_each_known_attribute_gives_the_voxel_size(name: str, value: tuple[float, ...], tmp_path: Path) -> None:
    address = written(tmp_path / "v.h5", raw=np.ones((3, 4, 5)))
    with h5py.File(address, "a") as file:
        file["raw"].attrs[name] = value
    assert open_volume(address).voxel_size_nm == pytest.approx((30.0, 8.0, 8.5))


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", "uint32", "uint64", ">f4", "float16"])
def test_every_dtype_reads_native(dtype: str, tmp_path: Path) -> None:
    array = np.random.default_rng(8).integers(0, 2, (3, 4, 5)).astype(dtype)
    found = open_volume(written(tmp_path / "v.h5", raw=array)).read(Box((0, 0, 0), (3, 4, 5)))
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, array)


def test_a_truncated_or_garbled_file_is_refused(tmp_path: Path) -> None:
    address = written(tmp_path / "v.h5", raw=np.ones((30, 40, 50)))
    path = Path(address)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(address)
    path.write_bytes(os.urandom(5000))
    with pytest.raises(BadInput, match="must be readable"):
        open_volume(address)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"must be readable|must exist"):
        open_volume(f"{tmp_path / 'no.h5'}:raw")


def test_hdf5_is_read_only(tmp_path: Path) -> None:
    volume = open_volume(written(tmp_path / "v.h5", raw=np.ones((3, 4, 5), np.uint8)))
    with pytest.raises(BadInput, match="read only"):
        volume.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8))
