"""The same array in every format, made once per session."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr

from pipeline.geometry import Box
from pipeline.store.formats import ome_zarr, precomputed
from pipeline.store.volume import Volume, open_volume

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

from command_line import teramito  # noqa: F401

SHAPE = (23, 37, 45)
SIZE_NM = (30.0, 8.5, 8.0)
OFFSET_NM = (90.0, -17.0, 40.0)


@pytest.fixture(scope="session")
def array() -> npt.NDArray[np.uint16]:
    """Random uint16, three different side lengths, no multiple of a chunk."""
    return np.random.default_rng(7).integers(0, 2**16, SHAPE, dtype=np.uint16)


@pytest.fixture(scope="session")
def addresses(array: npt.NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Address of ``array`` in each format, by the format's name."""
    root = tmp_path_factory.mktemp("formats")
    return {
        "zarr v2": _zarr(root / "two.zarr", array, zarr_format=2),
        "zarr v2, Fortran order": _zarr(root / "fortran.zarr", array, zarr_format=2, order="F"),
        "zarr v3": _zarr(root / "three.zarr", array, zarr_format=3),
        "OME-Zarr 0.4": _ome_zarr_04(root / "ome04.zarr", array),
        "OME-Zarr 0.5": _ome_zarr_05(root / "ome05.zarr", array),
        "TIFF": _tiff(root / "plain.tif", array),
        "big-endian TIFF": _tiff(root / "big-endian.tif", array, byteorder=">"),
        "BigTIFF": _tiff(root / "big.tif", array, bigtiff=True),
        "ImageJ TIFF": _tiff(root / "imagej.tif", array, imagej=True, metadata={"axes": "ZYX"}),
        "ImageJ TIFF of one page": _tiff(root / "one.tif", array, imagej=True, metadata={"axes": "ZYX"}, truncate=True),
        "tiled deflate TIFF": _tiff(root / "tiled.tif", array, compression="zlib", predictor=True, tile=(16, 32)),
        "TIFF of strips": _tiff(root / "strips.tif", array, compression="zlib", rowsperstrip=5, metadata=None),
        "JPEG XL TIFF": _tiff(root / "jxl.tif", array, compression="jpegxl", compressionargs={"lossless": True}),
        "TIFF folder": _folder(root / "slices", array),
        "HDF5": _hdf5(root / "one.h5", array),
        "HDF5 dataset": _hdf5(root / "two.h5", array, "volumes/raw") + ":volumes/raw",
        "precomputed": _precomputed(root / "pre", array),
    }


def _zarr(path: Path, array: npt.NDArray[np.uint16], **how: Any) -> str:
    stored = zarr.create_array(path, shape=array.shape, chunks=(8, 16, 16), dtype=array.dtype, **how)
    stored[...] = array
    return str(path)


def _ome_zarr_04(path: Path, array: npt.NDArray[np.uint16]) -> str:
    transforms = [{"type": "scale", "scale": [1, 0.03, 0.0085, 0.008]}]
    transforms.append({"type": "translation", "translation": [0, 0.09, -0.017, 0.04]})
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    group = zarr.open_group(path, mode="w", zarr_format=2, attributes={"multiscales": [image]})
    group.create_array("0", shape=(1, *array.shape), chunks=(1, 8, 16, 16), dtype=array.dtype)[...] = array[None]
    return str(path)


def _ome_zarr_05(path: Path, array: npt.NDArray[np.uint16]) -> str:
    ome_zarr.create(str(path), SHAPE, (24, 48, 48), (8, 16, 16), "uint16", SIZE_NM, OFFSET_NM)
    ome_zarr.open_handle(str(path), "").write(Box.of_shape(SHAPE), array)
    return str(path)


def _tiff(path: Path, array: npt.NDArray[np.uint16], **how: Any) -> str:
    tifffile.imwrite(path, array, photometric="minisblack", **how)
    return str(path)


def _folder(path: Path, array: npt.NDArray[np.uint16]) -> str:
    path.mkdir()
    for z, plane in enumerate(array):
        tifffile.imwrite(path / f"slice_{z}.tif", plane, compression="zlib" if z % 2 else None)
    (path / "notes.txt").write_text("not a slice")
    return str(path)


def _hdf5(path: Path, array: npt.NDArray[np.uint16], name: str = "raw") -> str:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(name, data=array, chunks=(8, 16, 16), compression="gzip")
        dataset.attrs["resolution"], dataset.attrs["offset"] = SIZE_NM, OFFSET_NM
        file["a table"] = np.arange(6).reshape(2, 3)
        if name != "raw":
            file["another volume"] = array[:2]
    return str(path)


def _precomputed(path: Path, array: npt.NDArray[np.uint16]) -> str:
    precomputed.create_precomputed(str(path), SHAPE, "uint16", SIZE_NM, OFFSET_NM, (8, 16, 16), "image")
    volume: Volume = open_volume(str(path))
    volume.write(volume.box, array)
    return str(path)
