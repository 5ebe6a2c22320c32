"""Zarr arrays, v2 and v3, and OME-Zarr 0.4 and 0.5 images; what teramito writes is OME-Zarr 0.5 (zarr v3).

Intermediate arrays are unsharded with one chunk shape that divides the blocks, and are rounded up to whole blocks: a
block writes whole chunks only (zarr-python 3.1 loses data on partial writes of shards, zarr-python 3682). The true
extent stands in the attributes. Source: OME-NGFF 0.5, https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import LocalStore

from pipeline.arrays import Array
from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Triple, float_vec3, vec3
from pipeline.store.formats import Description, native
from pipeline.store.formats.chunk_codecs import wanted
from pipeline.store.formats.chunk_files import ChunkFiles
from pipeline.store.formats.writer import KEY, Writer

# UDUNITS-2 length names as OME-NGFF asks for them, in nanometres.
_NANOMETRES = {
    "angstrom": 0.1, "picometer": 1e-3, "nanometer": 1.0, "nm": 1.0, "micrometer": 1e3, "um": 1e3, "µm": 1e3,
    "millimeter": 1e6, "centimeter": 1e7, "meter": 1e9,
}  # fmt: skip
TRUE_EXTENT = "teramito_extent"
# A 128^3 chunk of final ids, a tenth of it instances, takes 1.1 ms to write and 2.8 to read (21 kB) by shuffled Blosc
# as chunk_codecs makes it, 8.3 and 6.3 ms (83 kB) by zstd alone; one of local labels 1.0 and 1.8, against 2.7 and 2.1.
_COMPRESSORS = {"zstd": ZstdCodec(level=1), "blosc": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")}


class ZarrHandle:
    """An opened zarr array seen as z, y, x; leading axes of length one are dropped."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array: Any = array  # zarr's own type of an index leaves tuples of slices out
        self._lead = (0,) * (array.ndim - 3)
        self._files = _chunk_files(array)

    def read(self, box: Box) -> Array:
        """The voxels of ``box``."""
        if self._files is not None:
            return self._files.read(box)
        return np.asarray(self._array[(*self._lead, *box.slices())])

    def write(self, box: Box, array: Array) -> None:
        """Store whole chunks; the padding beyond the true extent is written as zeros with them."""
        stored = Box.of_shape(self._array.shape[-3:])
        chunks = vec3(self._array.chunks[-3:])
        whole = Box(box.start, box.stop.ceil_div(chunks) * chunks).clipped(stored)
        if whole != box:
            padded = np.zeros(whole.shape, array.dtype)
            padded[box.slices(whole.start)] = array
            box, array = whole, padded
        if self._files is not None:
            self._files.write(box, array)
            return
        self._array[(*self._lead, *box.slices())] = array


def _chunk_files(array: zarr.Array[Any]) -> ChunkFiles | None:
    """The array's chunks as files, where it lies on a disk in the layout of ``create``."""
    if not isinstance(array.store, LocalStore) or array.metadata.zarr_format != 3:
        return None
    return ChunkFiles.of(Path(array.store.root) / array.path, array.metadata.to_dict())


def describe(url: str, path: str) -> Description:
    """Shape, dtype, chunks, voxel size and offset of a zarr array or the full resolution of an OME-Zarr image."""
    array, size, offset = _located(url, path)
    _require_three_axes(url, array)
    extent = array.attrs.get(TRUE_EXTENT)
    shape = vec3(extent) if isinstance(extent, list) else vec3(array.shape[-3:])
    return Description(shape, native(array.dtype), vec3(array.chunks[-3:]), size, offset)


def open_handle(url: str, path: str) -> ZarrHandle:
    """Open the array for reading and writing (reading alone where the store allows no more)."""
    return ZarrHandle(_located(url, path)[0])


def create(
    url: str,
    extent: Triple,
    stored_shape: Triple,
    chunks: Triple,
    dtype: str,
    voxel_size_nm: FloatVec3 | None,
    offset_nm: FloatVec3 = (0.0, 0.0, 0.0),
    writer: Writer | None = None,
) -> None:
    """Create an empty OME-Zarr 0.5 image with one resolution level ``0``; an existing one is replaced.

    Args:
        url: local path or URL of the image group.
        extent: true shape, z, y, x voxels.
        stored_shape: that rounded up to whole blocks.
        chunks: z, y, x; must divide the blocks.
        dtype: numpy name.
        voxel_size_nm: z, y, x nanometres; an unknown one is stored as 1 without a unit.
        offset_nm: position of the first voxel, z, y, x nanometres.
        writer: the stage of a run that writes it; stands in the attributes of the array.
    """
    group = zarr.open_group(url, mode="w", zarr_format=3, attributes={"ome": _ome(url, voxel_size_nm, offset_nm)})
    group.create_array(
        "0",
        shape=stored_shape,
        chunks=chunks,
        dtype=dtype,
        compressors=_COMPRESSORS[wanted(dtype, chunks)],
        fill_value=0,
        dimension_names=("z", "y", "x"),
        attributes={TRUE_EXTENT: list(extent), **({KEY: writer.stated()} if writer else {})},
    )


def _ome(url: str, size: FloatVec3 | None, offset: FloatVec3) -> dict[str, Any]:
    unit = {"unit": "nanometer"} if size else {}
    transforms = [
        {"type": "scale", "scale": list(size or (1.0, 1.0, 1.0))},
        {"type": "translation", "translation": list(offset)},
    ]
    image = {
        "name": url.rsplit("/", 1)[-1],
        "axes": [{"name": name, "type": "space", **unit} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": transforms}],
    }
    return {"version": "0.5", "multiscales": [image]}


def _located(url: str, path: str) -> tuple[zarr.Array[Any], FloatVec3 | None, FloatVec3 | None]:
    node = _open_node(url, path)
    if isinstance(node, zarr.Array):
        return _array_in_parent(url, node)
    image = _multiscales(node.attrs)
    if image is None:
        arrays = [name for name, _ in node.arrays()]
        raise BadInput(
            url,
            "a zarr group must be an OME-Zarr image",
            "this group has no multiscales metadata",
            f"Name one of its arrays instead: {', '.join(arrays) or 'it has none'}.",
        )
    first = image["datasets"][0]
    array = node[first["path"]]
    if not isinstance(array, zarr.Array):
        raise BadInput(url, "the first dataset of an OME-Zarr image must be an array")
    return array, *_scale(image, first)


def _open_node(url: str, path: str) -> zarr.Array[Any] | zarr.Group:
    if url.startswith("http"):
        return zarr.open(url, path=path or None, mode="r")
    try:
        return zarr.open(url, path=path or None, mode="r+")
    except PermissionError:
        return zarr.open(url, path=path or None, mode="r")


def _array_in_parent(url: str, array: zarr.Array[Any]) -> tuple[zarr.Array[Any], FloatVec3 | None, FloatVec3 | None]:
    """A resolution level named directly takes its voxel size from the image group it stands in."""
    parent, _, name = url.rstrip("/").rpartition("/")
    try:
        image = _multiscales(zarr.open_group(parent, mode="r").attrs)
    except (FileNotFoundError, ValueError, KeyError):
        image = None
    for dataset in (image or {}).get("datasets", ()):
        if dataset["path"] == name and image is not None:
            return array, *_scale(image, dataset)
    return array, None, None


def _multiscales(attributes: Any) -> Any:
    ome: Any = attributes.get("ome", attributes)
    images = ome.get("multiscales") if isinstance(ome, Mapping) or hasattr(ome, "get") else None
    return images[0] if images else None


def _scale(image: Mapping[str, Any], dataset: Mapping[str, Any]) -> tuple[FloatVec3 | None, FloatVec3 | None]:
    axes = image.get("axes", [])[-3:]
    units = [_NANOMETRES.get(str(axis.get("unit")), 0.0) if isinstance(axis, Mapping) else 0.0 for axis in axes]
    if len(units) != 3 or not all(units):
        return None, None
    scale: Sequence[float] = (1.0, 1.0, 1.0)
    offset: Sequence[float] = (0.0, 0.0, 0.0)
    transforms = [*dataset.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    for transform in transforms:
        if transform["type"] == "scale":
            factor = transform["scale"][-3:]
            scale = [s * f for s, f in zip(scale, factor, strict=True)]
            offset = [o * f for o, f in zip(offset, factor, strict=True)]
        elif transform["type"] == "translation":
            offset = [o + t for o, t in zip(offset, transform["translation"][-3:], strict=True)]
    size_nm = float_vec3(s * u for s, u in zip(scale, units, strict=True))
    if not any(transform["type"] == "translation" for transform in transforms):
        return size_nm, None
    return size_nm, float_vec3(o * u for o, u in zip(offset, units, strict=True))


def _require_three_axes(url: str, array: zarr.Array[Any]) -> None:
    if array.ndim < 3 or any(length != 1 for length in array.shape[:-3]):
        raise BadInput(
            url,
            "a volume has three axes, z y x (more only where they have length 1)",
            f"its shape is {array.shape}",
            "Choose one channel and time point, for example with zarr, and give that array.",
        )
