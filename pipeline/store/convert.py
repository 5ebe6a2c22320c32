"""Copy a volume of any format into another, block by block, never whole in memory.

The target's name chooses its format: ``precomputed://`` before it or ``.precomputed`` at its end, ``.tif`` or
``.tiff``, ``.h5`` (with an optional ``:dataset``); everything else is OME-Zarr 0.5. A local target is written in a
hidden folder beside it and moved out when it is whole. A remote one is written with its root metadata (``zarr.json``
or ``info``) set aside as ``*.partial``, so that nothing finds a volume there until the metadata are back; what a
killed conversion leaves there must be deleted before the next try.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import tifffile

from pipeline.arrays import Array, Kind
from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Triple, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats import Handle, ome_zarr, precomputed
from pipeline.store.formats.address import HDF5, TIFF_ENDINGS, absolute_url, exists, is_remote, join
from pipeline.store.volume import Volume, open_volume

_Progress = Callable[[int, int], None]
_CHUNK = vec3((64, 64, 64))  # precomputed: what Neuroglancer fetches for one view
ZARR_CHUNK = vec3((64, 128, 128))
BLOCK = vec3((64, 1024, 1024))  # flat and wide: a TIFF page then decodes once, and 64 MiB of uint8
SLAB_BYTES = 256 * 2**20
OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")


def convert(source: Volume, target_url: str, block: Triple | None = None, progress: _Progress | None = None) -> Volume:
    """Copy ``source`` to ``target_url`` and return the new volume.

    Voxel size and offset are kept where the format can hold them: TIFF holds no offset, precomputed only whole voxels
    of it (the rest stays in its info, see ``create_precomputed``).

    Args:
        source: any readable volume, cropped or not.
        target_url: local path or URL; TIFF and HDF5 only locally.
        block: z, y, x voxels copied at once, a multiple of the target's chunks; None chooses one.
        progress: called with (blocks or slabs done, of how many).

    Raises:
        BadInput: the target exists, the block cuts chunks, or the format cannot hold the source.
    """
    report = progress or (lambda done, total: None)
    if target_url.startswith("precomputed://") or target_url.endswith(".precomputed"):
        return _to_precomputed(source, absolute_url(target_url.removeprefix("precomputed://")), block, report)
    if match := HDF5.match(target_url):
        return _to_hdf5(source, absolute_url(match["url"]), match["path"] or "volume", block, report)
    if target_url.lower().endswith(TIFF_ENDINGS):
        return _to_tiff(source, absolute_url(target_url), report)
    return _to_zarr(source, absolute_url(target_url), block, report)


def _to_zarr(source: Volume, url: str, block: Triple | None, report: _Progress) -> Volume:
    _require_absent(url)
    grid, chunk = _grid(source, block, ZARR_CHUNK, url)
    stored = BlockGrid(source.shape, chunk).padded_extent
    with _published(url, "zarr.json") as (place, hidden):
        ome_zarr.create(place, source.shape, stored, chunk, source.dtype, source.voxel_size_nm, source.offset_nm)
        handle = ome_zarr.open_handle(place, "")
        with hidden():
            _copy(source, grid, handle, report)
    return open_volume(url)


def _to_precomputed(source: Volume, url: str, block: Triple | None, report: _Progress) -> Volume:
    _require_absent(url)
    size = _required_size(source)
    grid, chunk = _grid(source, block, _CHUNK, url)
    dtype = "uint8" if source.dtype == "bool" else source.dtype
    kind: Kind = "segmentation" if dtype in ("uint32", "uint64") else "image"
    with _published(url, "info") as (place, hidden):
        precomputed.create_precomputed(place, source.shape, dtype, size, source.offset_nm, chunk, kind)
        handle = precomputed.open_handle(place, "")
        with hidden():
            _copy(source, grid, handle, report)
    return open_volume(f"precomputed://{url}")


def _to_hdf5(source: Volume, url: str, path: str, block: Triple | None, report: _Progress) -> Volume:
    _require_local(url)
    _require_absent(url)
    grid, chunk = _grid(source, block, ZARR_CHUNK, url)
    chunk = chunk.min(source.shape)
    with _published(url, "") as (place, _), h5py.File(place, "w") as file:
        dataset = file.create_dataset(path, source.shape, source.dtype, chunks=chunk, compression="gzip", shuffle=True)
        dataset.attrs.update(_hdf5_attributes(source))
        _copy(source, grid, _DatasetWriter(dataset), report)
    return open_volume(f"{url}:{path}")


def _to_tiff(source: Volume, url: str, report: _Progress) -> Volume:
    _require_local(url)
    _require_absent(url)
    ome = source.dtype in OME_DTYPES and source.shape[0] > 1  # OME-TIFF knows no other dtypes, and drops an axis of 1
    metadata = _ome_metadata(source) if ome else _shaped_metadata(source)
    slabs = _slabs(source)
    with _published(url, "") as (place, _), tifffile.TiffWriter(place, bigtiff=True, ome=ome) as writer:
        writer.write(
            _planes(source, slabs, report), shape=source.shape, dtype=source.dtype, photometric="minisblack",
            compression="zlib", metadata=metadata,
        )  # fmt: skip
    report(len(slabs), len(slabs))
    return open_volume(url)


def _copy(source: Volume, grid: BlockGrid, target: Handle, report: _Progress) -> None:
    for done, block in enumerate(grid, start=1):
        target.write(block.core, source.read(block.core))
        report(done, len(grid))


class _DatasetWriter:
    """An HDF5 dataset of this process as the target of ``_copy``."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def read(self, box: Box) -> Array:
        return np.asarray(self._dataset[box.slices()])

    def write(self, box: Box, array: Array) -> None:
        self._dataset[box.slices()] = array


def _planes(source: Volume, slabs: BlockGrid, report: _Progress) -> Iterator[Array]:
    """The slices in order, read slab by slab; a slab counts as done when the next one is asked for."""
    for slab in slabs:
        if slab.number:
            report(slab.number, len(slabs))
        yield from source.read(slab.core)


def _slabs(source: Volume) -> BlockGrid:
    depth, height, width = source.shape
    fit = SLAB_BYTES // (height * width * np.dtype(source.dtype).itemsize)
    chunked = max(1, min(fit, depth) // source.chunks[0]) * source.chunks[0]  # whole chunks: each is decoded once
    return BlockGrid(source.shape, (max(1, min(fit, chunked)), height, width))


def _grid(source: Volume, block: Triple | None, chunk: Vec3, url: str) -> tuple[BlockGrid, Vec3]:
    """The blocks to copy, whole chunks each, and the chunk: never larger than a small volume needs."""
    chosen = vec3(block) if block else BLOCK.min(vec3(source.shape).ceil_div(chunk) * chunk)
    if min(chosen) > 0 and chosen.is_multiple_of(chunk):
        return BlockGrid(source.shape, chosen), chunk
    nearest = vec3(round(b / c) for b, c in zip(chosen, chunk, strict=True)).max(1) * chunk
    raise BadInput(
        f"block {chosen} for {url}",
        f"a block is a multiple of the chunk {chunk}",
        "blocks write whole chunks only",
        f"The nearest legal block is {nearest}.",
    )


@contextmanager
def _published(url: str, metadata: str) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
    """Where to write, and a context within which the blocks are written; the target appears at the very end."""
    if is_remote(url):
        yield url, lambda: _set_aside(join(url, metadata))
        return
    target = Path(url)
    hidden = target.with_name(f".{target.name}.teramito-partial")
    shutil.rmtree(hidden, ignore_errors=True)  # left by a killed conversion to the same target
    hidden.mkdir(parents=True)
    try:
        yield str(hidden / target.name), nullcontext
        if target.is_dir():
            target.rmdir()  # known to be empty
        (hidden / target.name).replace(target)
    finally:
        shutil.rmtree(hidden)


@contextmanager
def _set_aside(url: str) -> Iterator[None]:
    """Keep an object under ``*.partial`` until the block of code has run to its end."""
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    filesystem.mv(path, f"{path}.partial")
    yield
    filesystem.mv(f"{path}.partial", path)
    filesystem.invalidate_cache()


def _require_absent(url: str) -> None:
    """An empty folder may stand there; anything else might be somebody's data."""
    if url.startswith("http"):
        raise BadInput(url, "a web server cannot be written to", nearest="Give a local path, s3:// or gs://.")
    occupied = _holds_objects(url) if is_remote(url) else _occupied(Path(url))
    if occupied:
        raise BadInput(
            url, "the target must not exist", "converting never overwrites", "Choose another name, or delete it first."
        )


def _occupied(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _holds_objects(url: str) -> bool:
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    return exists(url) and bool(filesystem.find(path, maxdepth=2))


def _require_local(url: str) -> None:
    if is_remote(url):
        raise BadInput(
            url, "TIFF and HDF5 are written locally", "their writers seek", "Write OME-Zarr there, or upload the file."
        )


def _required_size(source: Volume) -> FloatVec3:
    if source.voxel_size_nm is None:
        raise BadInput(
            str(source), "precomputed needs the voxel size", "its positions are nanometres", "State the voxel size."
        )
    return source.voxel_size_nm


def _hdf5_attributes(source: Volume) -> dict[str, Any]:
    if source.voxel_size_nm is None:
        return {}
    size = np.asarray(source.voxel_size_nm)
    return {"resolution": size, "element_size_um": size / 1e3, "offset": np.asarray(source.offset_nm)}


def _ome_metadata(source: Volume) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, size in zip("ZYX", source.voxel_size_nm or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    return metadata


def _shaped_metadata(source: Volume) -> dict[str, Any]:
    return {"axes": "ZYX", **({"voxel_size_nm": list(source.voxel_size_nm)} if source.voxel_size_nm else {})}
