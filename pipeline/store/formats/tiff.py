"""TIFF stacks, read in place: one multi-page file, or a folder of single-page slices in natural order of their names.

Only the strips or tiles that a box needs are read. Decoded ones stay in a small cache, because blocks side by side in
x share them and most microscopes write one strip for a whole page. Compressions are those of imagecodecs, JPEG XL too.
"""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import tifffile

from pipeline.arrays import Array
from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.store.formats import Description, native
from pipeline.store.formats.address import TIFF_ENDINGS, is_remote, join

CACHE_BYTES = 256 * 2**20
OPEN_SLICES = 64  # files of a folder kept open at once, far below the usual limit of 1024
# Unit names as ImageJ and OME-XML write them, in nanometres.
_NANOMETRES = {
    "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00B5m": 1e3, "micron": 1e3, "microns": 1e3,
    "micrometer": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9, "inch": 2.54e7, "Å": 0.1, "pm": 1e-3,
}  # fmt: skip


class SegmentCache:
    """Decoded strips and tiles, least recently used first out, bound by their bytes; safe between threads."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit, self._held = limit_bytes, 0
        self._entries: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Array]) -> Array:
        """The array of ``key``, loaded (outside the lock) when it is not held."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        array = load()
        with self._lock:
            if key not in self._entries:
                self._entries[key] = array
                self._held += array.nbytes
            while self._held > self._limit and self._entries:
                self._held -= self._entries.popitem(last=False)[1].nbytes
        return array


class TiffPlanes:
    """One opened TIFF file as ``count`` planes y, x; closed by ``close``."""

    def __init__(self, url: str) -> None:
        with ExitStack() as opened:  # a refusal below closes what was opened
            file = opened.enter_context(fsspec.open(url, "rb").open()) if is_remote(url) else url
            self.tiff = opened.enter_context(tifffile.TiffFile(file))
            self.series = _only_series(url, self.tiff)
            self.shape = _plane_shape(url, self.series)
            _require_all_pages(url, self.tiff, self.series)
            self._opened = opened.pop_all()
        self.dtype = self.series.dtype
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def read(self, z: int, window: tuple[slice, slice], cache: SegmentCache, key: Hashable) -> Array:
        """The y, x window of plane ``z``; ``key`` tells this file's segments from others in the cache."""
        if self.series.dataoffset is not None:
            return self._contiguous(z, *window)
        out = np.zeros([part.stop - part.start for part in window], self.dtype)
        height, width = self.series.keyframe.chunks[-2:]
        columns = -(-self.shape[2] // width)
        for row in range(window[0].start // height, -(-window[0].stop // height)):
            for column in range(window[1].start // width, -(-window[1].stop // width)):
                index = row * columns + column
                segment = cache.get((key, z, index), lambda index=index: self._segment(z, index))  # type: ignore[misc]
                _paste(out, window, segment, (row * height, column * width))
        return out

    def _contiguous(self, z: int, rows: slice, columns: slice) -> Array:
        """Uncompressed pages that follow one another: whole rows, straight from the file (ImageJ, tifffile)."""
        _, height, width = self.shape
        stored = np.dtype(self.tiff.byteorder + self.dtype.char)
        offset = self.series.dataoffset + (z * height + rows.start) * width * stored.itemsize
        count = (rows.stop - rows.start) * width
        with self._lock:
            self.tiff.filehandle.seek(offset)
            data = self.tiff.filehandle.read(count * stored.itemsize)
        return np.frombuffer(data, stored).reshape(-1, width)[: rows.stop - rows.start, columns]

    def _segment(self, z: int, index: int) -> Array:
        with self._lock:
            page: Any = self.series.pages[z]
            self.tiff.filehandle.seek(page.dataoffsets[index])
            data = self.tiff.filehandle.read(page.databytecounts[index])
        decoded, _, shape = page.keyframe.decode(data or None, index, jpegtables=page.jpegtables)
        if decoded is None:
            return np.full(shape[1:3], page.keyframe.nodata, self.dtype)
        return np.asarray(decoded).reshape(decoded.shape[-3:-1])


class TiffHandle:
    """A multi-page TIFF seen as z, y, x; read only."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._planes = TiffPlanes(url)
        self._cache = SegmentCache()

    def read(self, box: Box) -> Array:
        """The voxels of ``box``."""
        zs, *window = box.slices()
        planes = [self._planes.read(z, (window[0], window[1]), self._cache, 0) for z in range(zs.start, zs.stop)]
        return np.stack(planes)

    def write(self, box: Box, array: Array) -> None:
        """Refuse: a TIFF is not written in place."""
        raise _read_only(self._url)


class SliceFolderHandle:
    """A folder of single-page TIFF files seen as z, y, x; read only."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._slices = slice_urls(url)
        self._open: OrderedDict[int, TiffPlanes] = OrderedDict()
        self._cache = SegmentCache()
        self._lock = threading.Lock()

    def read(self, box: Box) -> Array:
        """The voxels of ``box``; one thread at a time, since the slices' files come and go."""
        zs, rows, columns = box.slices()
        with self._lock:
            return np.stack([self._slice(z).read(0, (rows, columns), self._cache, z) for z in range(zs.start, zs.stop)])

    def write(self, box: Box, array: Array) -> None:
        """Refuse: a TIFF is not written in place."""
        raise _read_only(self._url)

    def _slice(self, z: int) -> TiffPlanes:
        if z not in self._open:
            self._open[z] = TiffPlanes(self._slices[z])
            if len(self._open) > OPEN_SLICES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(z)
        return self._open[z]


def describe(url: str, path: str) -> Description:
    """Shape, dtype, page segments and, where the file states all three axes, voxel size of a TIFF stack.

    Raises:
        BadInput: the file is RGB, not 3-D, truncated or holds images of several shapes; a slice of a folder is odd.
    """
    if not _is_file(url):
        return _describe_folder(url)
    planes = TiffPlanes(url)
    try:
        if len(planes.series.shape) != 3:
            raise _not_three_axes(url, planes.series)
        return _description(planes, planes.shape[0])
    finally:
        planes.close()


def open_handle(url: str, path: str) -> TiffHandle | SliceFolderHandle:
    """Open the stack for reading."""
    return TiffHandle(url) if _is_file(url) else SliceFolderHandle(url)


def slice_urls(url: str) -> list[str]:
    """The TIFF files of a folder in natural order: ``s2.tif`` before ``s10.tif``."""
    if is_remote(url):
        filesystem, root = fsspec.core.url_to_fs(url)
        names = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(root, detail=False)]
    else:
        names = [entry.name for entry in Path(url).iterdir()]
    names = [name for name in names if name.lower().endswith(TIFF_ENDINGS) and not name.startswith(".")]
    return [join(url, name) for name in sorted(names, key=_natural)]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _is_file(url: str) -> bool:
    return url.lower().endswith(TIFF_ENDINGS) and (is_remote(url) or not Path(url).is_dir())


def _describe_folder(url: str) -> Description:
    slices = slice_urls(url)
    if not slices:
        raise BadInput(url, "a folder of slices needs at least one TIFF file")
    first = _describe_slice(slices[0], len(slices))
    for name in slices[1:]:
        other = _describe_slice(name, len(slices))
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise BadInput(
                name,
                f"every slice of a folder must be like the first, {first.shape[1:]} {first.dtype} ({slices[0]})",
                f"this one is {other.shape[1:]} {other.dtype}",
                "Move it out of the folder, or save it like the others.",
            )
    return first


def _describe_slice(url: str, count: int) -> Description:
    planes = TiffPlanes(url)
    try:
        if planes.shape[0] != 1:
            why = f"this file holds {planes.shape[0]}"
            raise BadInput(url, "a slice of a folder holds one page", why, "Give that file itself.")
        return _description(planes, count)
    finally:
        planes.close()


def _description(planes: TiffPlanes, count: int) -> Description:
    _, height, width = planes.shape
    chunk = (1, *planes.series.keyframe.chunks[-2:])
    return Description(vec3((count, height, width)), native(planes.dtype), vec3(chunk), _voxel_size(planes.tiff))


def _only_series(url: str, tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    if len(tiff.series) != 1:
        shapes = ", ".join(str(series.shape) for series in tiff.series) or "none"
        raise BadInput(url, "a TIFF stack holds one image with pages of one shape and dtype", f"it holds: {shapes}")
    return tiff.series[0]


def _plane_shape(url: str, series: tifffile.TiffPageSeries) -> Vec3:
    if "S" in series.axes or len(series.shape) not in (2, 3) or not series.axes.endswith("YX"):
        raise _not_three_axes(url, series)
    return vec3((1, *series.shape)[-3:])


def _not_three_axes(url: str, series: tifffile.TiffPageSeries) -> BadInput:
    return BadInput(
        url,
        "a volume is a stack of grey pages, z y x",
        f"its shape is {series.shape} with axes {series.axes}{' (S: colours)' if 'S' in series.axes else ''}",
        "Save one channel as a stack, or name the folder that holds the slices.",
    )


def _require_all_pages(url: str, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """A truncated file keeps its header: count the bytes that the pages claim against those that are there."""
    count = int(np.prod(series.shape[:-2]))
    if series.dataoffset is not None:
        end = series.dataoffset + series.size * series.dtype.itemsize
    elif len(series.pages) < count or any(page is None for page in series.pages):
        raise BadInput(url, f"a TIFF stack of {count} slices has as many pages", f"it has {len(series.pages)} pages")
    else:
        last: Any = series.pages[-1]
        end = max((a + b for a, b in zip(last.dataoffsets, last.databytecounts, strict=True)), default=0)
    if end > tiff.filehandle.size:
        raise BadInput(
            url, f"the file must hold its {end} bytes", f"it ends after {tiff.filehandle.size}", "Copy it again."
        )


def _paste(out: Array, window: tuple[slice, slice], segment: Array, at: tuple[int, int]) -> None:
    """Copy the part of ``segment`` (first voxel at y, x ``at``) that lies in the window."""
    target, source = [], []
    for part, start, length in zip(window, at, segment.shape, strict=True):
        low, high = max(part.start, start), min(part.stop, start + length)
        target.append(slice(low - part.start, high - part.start))
        source.append(slice(low - start, high - start))
    out[tuple(target)] = segment[tuple(source)]


def _voxel_size(tiff: tifffile.TiffFile) -> FloatVec3 | None:
    if tiff.imagej_metadata:
        return _imagej_voxel_size(tiff.imagej_metadata, tiff.pages[0])
    if tiff.ome_metadata:
        return _ome_voxel_size(tiff.ome_metadata)
    stated = (tiff.shaped_metadata or ({},))[0].get("voxel_size_nm")
    return None if stated is None else (float(stated[0]), float(stated[1]), float(stated[2]))


def _imagej_voxel_size(metadata: Mapping[str, Any], page: Any) -> FloatVec3 | None:
    """ImageJ: ``spacing`` is z in ``unit``, the resolution tags are pixels per ``unit``."""
    scale = _NANOMETRES.get(str(metadata.get("unit", "")).strip())
    spacing = float(metadata.get("spacing", 0.0))
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    if scale is None or not spacing or any(tag is None or not tag.value[0] for tag in tags):
        return None
    y, x = (scale * tag.value[1] / tag.value[0] for tag in tags)
    return abs(spacing) * scale, y, x


def _ome_voxel_size(xml: str) -> FloatVec3 | None:
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    attributes = {} if pixels is None else pixels.attrib
    sizes = []
    for axis in "ZYX":
        scale = _NANOMETRES.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"), 0.0)
        sizes.append(float(attributes.get(f"PhysicalSize{axis}", 0.0)) * scale)
    return (sizes[0], sizes[1], sizes[2]) if all(sizes) else None


def _read_only(url: str) -> BadInput:
    return BadInput(url, "a TIFF stack is read only", "its pages cannot be rewritten block by block", "Write OME-Zarr.")
