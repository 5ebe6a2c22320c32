"""HDF5 datasets, read in place: ``file.h5:dataset``, or the only 3-D dataset of the file. Read only.

Voxel size and offset come from the dataset's attributes: ``element_size_um`` (ilastik and the Fiji HDF5 plug-in, z y x
micrometres), ``resolution`` and ``offset`` (CREMI, z y x nanometres) and ``voxel_size_nm``.
"""

from __future__ import annotations

import threading
from typing import Any

import fsspec
import h5py
import numpy as np

from pipeline.arrays import Array
from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, float_vec3, vec3
from pipeline.store.formats import Description, native
from pipeline.store.formats.address import is_remote


class Hdf5Handle:
    """An opened dataset seen as z, y, x; leading axes of length one are dropped."""

    def __init__(self, url: str, path: str) -> None:
        self._url = url
        self._file = _open(url)
        self._dataset = _located(url, path, self._file)
        self._lead = (0,) * (self._dataset.ndim - 3)
        self._lock = threading.Lock()

    def read(self, box: Box) -> Array:
        """The voxels of ``box``."""
        with self._lock:
            return np.asarray(self._dataset[(*self._lead, *box.slices())])

    def write(self, box: Box, array: Array) -> None:
        """Refuse: one process at a time may write HDF5, so blocks cannot."""
        raise BadInput(self._url, "HDF5 is read only", "only one process may write it at a time", "Write OME-Zarr.")


def describe(url: str, path: str) -> Description:
    """Shape, dtype, chunks, voxel size and offset of a dataset.

    Raises:
        BadInput: the dataset is missing, not 3-D, or not named where the file holds several.
    """
    with _open(url) as file:
        dataset = _located(url, path, file)
        shape = vec3(dataset.shape[-3:])
        chunks = vec3(dataset.chunks[-3:]) if dataset.chunks else vec3((1, *shape[1:]))
        offset = _attribute(dataset, "offset")
        return Description(shape, native(dataset.dtype), chunks, _voxel_size(dataset), offset)


def open_handle(url: str, path: str) -> Hdf5Handle:
    """Open the dataset for reading."""
    return Hdf5Handle(url, path)


def _open(url: str) -> Any:
    # No file locking: it fails on read-only and network file systems, and nobody writes what we read.
    if is_remote(url):
        return h5py.File(fsspec.open(url, "rb").open(), "r")
    return h5py.File(url, "r", locking=False)


def _located(url: str, path: str, file: Any) -> Any:
    if not path:
        path = _only_volume(url, file)
    node = file.get(path)
    if not isinstance(node, h5py.Dataset):
        raise BadInput(
            f"{url}:{path}", "the dataset must exist", "the file has none of that name", _candidates(_volumes(file))
        )
    if not _is_volume(node):
        raise BadInput(
            f"{url}:{path}",
            "a volume has three axes, z y x, of numbers (more axes only in front, of length 1)",
            f"its shape is {node.shape} {node.dtype}",
            _candidates(_volumes(file)),
        )
    return node


def _only_volume(url: str, file: Any) -> str:
    names = _volumes(file)
    if len(names) != 1:
        rule = "a file without a named dataset must hold exactly one 3-D dataset"
        raise BadInput(url, rule, f"it holds {len(names) or 'none'}", _candidates(names))
    return names[0]


def _candidates(names: list[str]) -> str:
    listed = ", ".join(f":{name}" for name in names)
    return f"Name one after the file: {listed}." if names else "The file holds no 3-D dataset."


def _volumes(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if _is_volume(node) else None)
    return sorted(names)


def _is_volume(node: Any) -> bool:
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "buif":
        return False
    return node.ndim >= 3 and all(length == 1 for length in node.shape[:-3])


def _voxel_size(dataset: Any) -> FloatVec3 | None:
    micrometres = _attribute(dataset, "element_size_um")
    if micrometres is not None:
        return float_vec3(1e3 * value for value in micrometres)
    stated = _attribute(dataset, "voxel_size_nm")
    return _attribute(dataset, "resolution") if stated is None else stated


def _attribute(dataset: Any, name: str) -> FloatVec3 | None:
    value = np.asarray(dataset.attrs.get(name, ()))
    if value.shape != (3,) or value.dtype.kind not in "iuf":
        return None
    return float_vec3(value)
