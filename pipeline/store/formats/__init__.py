"""The storage formats. Each module offers ``describe`` and ``open_handle`` with one read and write surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from pipeline.arrays import Array
from pipeline.geometry import Box, FloatVec3, Vec3

MODULES = {
    "zarr": "pipeline.store.formats.ome_zarr",
    "tiff": "pipeline.store.formats.tiff",
    "hdf5": "pipeline.store.formats.hdf5",
    "precomputed": "pipeline.store.formats.precomputed",
}


@dataclass(frozen=True, slots=True)
class Description:
    """What a stored array says of itself. Axes z, y, x.

    ``shape`` is the true extent in voxels (``stored_shape`` may be larger, rounded up to whole blocks), ``chunks`` the
    cheapest unit to read, ``voxel_size_nm`` and ``offset_nm`` are nanometres, None where the file does not state them.
    ``notes`` are sentences for the user on what was done to read the array as it is meant (inverted, axes in another
    order) or on what looks odd about it (a gap in slice numbers); they are said before any work, and in the report.
    """

    shape: Vec3
    dtype: str
    chunks: Vec3
    voxel_size_nm: FloatVec3 | None = None
    offset_nm: FloatVec3 | None = None
    notes: tuple[str, ...] = ()


class Handle(Protocol):
    """An array opened in this process; never pickled."""

    def read(self, box: Box) -> Array:
        """The voxels of a box that lies inside the extent, z, y, x."""
        ...

    def write(self, box: Box, array: Array) -> None:
        """Store ``array`` at ``box``; raises BadInput where the format is read only."""
        ...


class Format(Protocol):
    """What a format module offers."""

    describe: Callable[[str, str], Description]
    open_handle: Callable[[str, str], Handle]


def format_module(name: str) -> Format:
    """The module of a format, imported when first needed (cloud-volume and h5py are slow to load)."""
    module: Any = import_module(MODULES[name])
    return module  # type: ignore[no-any-return]


def native(dtype: Any) -> str:
    """The name of a dtype in native byte order, for example ``uint16`` for ``>u2``."""
    return str(np.dtype(dtype).newbyteorder("=").name)
