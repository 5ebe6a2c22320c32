"""Neuroglancer Precomputed volumes through cloud-volume. The only format module that knows x y z.

The address' path is the mip: ``""`` or ``"0"`` is the full resolution. Everything that enters or leaves is z, y, x, in
voxels from the volume's own first voxel; the ``voxel_offset`` of the file stays inside. Format:
https://github.com/google/neuroglancer/tree/master/src/datasource/precomputed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import floor
from typing import Any

import numpy as np

from pipeline.arrays import Array, Kind
from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Vec3, float_vec3, vec3
from pipeline.store.formats import Description, native
from pipeline.store.formats.address import is_remote
from pipeline.store.formats.writer import KEY, Writer

DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
# Our own key of the info file, x y z like the rest of it; other readers pass over keys they do not know.
REMAINDER = "teramito_offset_remainder_nm"


@dataclass(frozen=True, slots=True)
class MipLevel:
    """One resolution: extent in voxels, position of its first voxel on its own lattice (voxels), voxel size; z y x."""

    extent: Vec3
    voxel_offset: Vec3
    voxel_size_nm: FloatVec3


class PrecomputedHandle:
    """An opened mip seen as z, y, x."""

    def __init__(self, url: str, mip: int) -> None:
        self._url, self._mip = url, mip
        self._volume = _cloud_volume(url, mip)
        scale = _scale(url, self._volume.info, mip)
        self._offset = _zyx(scale.get("voxel_offset", (0, 0, 0)))
        self._extent = Box.of_shape(_zyx(scale["size"]))
        self._chunk = _zyx(scale["chunk_sizes"][0])
        self._dtype = np.dtype(self._volume.info["data_type"])

    def read(self, box: Box) -> Array:
        """The voxels of ``box``; chunks that are not stored read as zero."""
        try:
            cutout = self._volume.download(_bbox(box.shifted(self._offset)), mip=self._mip, parallel=1)
        except torn_chunk_errors() as error:
            raise ValueError(f"a chunk is torn: {error}") from error
        return np.asarray(cutout)[..., 0].T

    def write(self, box: Box, array: Array) -> None:
        """Store ``array`` (cast to the stored dtype where no value can change) at ``box``, whole chunks.

        Raises:
            BadInput: the box cuts through chunks, or holds values that the stored dtype cannot.
        """
        self._require_whole_chunks(box)
        if not np.can_cast(array.dtype, self._dtype, "safe"):
            raise BadInput(
                f"{self._url} {box}", f"a {self._dtype} volume takes no {array.dtype}", "the cast would lose values"
            )
        image = np.ascontiguousarray(array, dtype=self._dtype).T
        corner = box.shifted(self._offset).start[::-1]
        self._volume.image.upload(image, corner, self._mip, parallel=1)

    def _require_whole_chunks(self, box: Box) -> None:
        """Two blocks that share a chunk would each undo the other's half of it."""
        starts = box.start.is_multiple_of(self._chunk)
        ends = all(b % c == 0 or b == e for b, c, e in zip(box.stop, self._chunk, self._extent.stop, strict=True))
        if starts and ends and self._extent.contains(box):
            return
        nearest = Box(box.start // self._chunk * self._chunk, box.stop.ceil_div(self._chunk) * self._chunk)
        raise BadInput(
            f"writing {box} to {self._url}",
            f"a block writes whole chunks of {self._chunk} inside {self._extent}",
            "blocks that share a chunk would each undo the other's half of it",
            f"The nearest legal box is {nearest.clipped(self._extent)}.",
        )


def describe(url: str, path: str) -> Description:
    """Extent, dtype, chunk, exact voxel size and offset of one mip.

    Raises:
        BadInput: there is no info file, no such mip, or more than one channel.
    """
    mip = _mip(url, path)
    info = _cloud_volume(url, mip).info
    scale = _scale(url, info, mip)
    size = float_vec3(reversed(scale["resolution"]))
    remainder = float_vec3(reversed(info.get(REMAINDER, (0.0, 0.0, 0.0))))
    corner = _zyx(scale.get("voxel_offset", (0, 0, 0)))
    offset = float_vec3(o * s + r for o, s, r in zip(corner, size, remainder, strict=True))
    return Description(_zyx(scale["size"]), native(info["data_type"]), _zyx(scale["chunk_sizes"][0]), size, offset)


def open_handle(url: str, path: str) -> PrecomputedHandle:
    """Open one mip for reading and writing."""
    return PrecomputedHandle(url, _mip(url, path))


def create_precomputed(
    url: str,
    extent: Vec3,
    dtype: str,
    voxel_size_nm: FloatVec3,
    offset_nm: FloatVec3,
    chunk: Vec3,
    kind: Kind,
    mips: Sequence[Vec3] = (),
    writers: Sequence[Writer] = (),
) -> FloatVec3:
    """Write the ``info`` of a volume; an existing info is replaced, stored chunks are left as they are.

    Args:
        url: local path or URL.
        extent: shape of mip 0 in voxels, z, y, x.
        dtype: one of ``DTYPES``.
        voxel_size_nm: nanometres, z, y, x; stored exactly.
        offset_nm: position of the first voxel, nanometres, z, y, x; stored in whole voxels.
        chunk: shape of a chunk, the same at every mip, z, y, x.
        kind: uint32 and uint64 segmentations are stored as compressed_segmentation 8x8x8, all else as raw.
        mips: factor of each further level against the one before it.
        writers: the stages of a run that write the levels, from mip 0 on.

    Returns:
        What ``offset_nm`` lies off whole voxels (nm, z, y, x; at most half a voxel). The format holds whole voxels
        only, so Neuroglancer shows the volume that much displaced; our own ``describe`` adds it back from the info.

    Raises:
        BadInput: the format has no such dtype.
    """
    if dtype not in DTYPES:
        raise BadInput(f"{url} as {dtype}", f"precomputed stores {', '.join(DTYPES)}", nearest="Convert it first.")
    levels = mip_levels(extent, voxel_size_nm, offset_nm, mips)
    remainder = float_vec3(o - v * s for o, v, s in zip(offset_nm, levels[0].voxel_offset, voxel_size_nm, strict=True))
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": kind,
        "data_type": dtype,
        "num_channels": 1,
        "scales": [_scale_entry(level, chunk, kind, dtype) for level in levels],
        REMAINDER: list(remainder[::-1]),
        **({KEY: [writer.stated() for writer in writers]} if writers else {}),
    }
    _cloud_volume(url, 0, info).commit_info()
    return remainder


def mip_levels(
    extent: Vec3, voxel_size_nm: FloatVec3, offset_nm: FloatVec3 = (0.0, 0.0, 0.0), factors: Sequence[Vec3] = ()
) -> list[MipLevel]:
    """The geometry of mip 0 and of one more level per factor (against the level before); all z, y, x.

    Every level lies on a lattice through the origin, so voxel v of a level covers the voxels v * f .. v * f + f - 1 of
    the finer one even where the offset is odd: the first and the last voxel may then cover fewer, and nothing shifts.
    """
    # Halves go up, also where the division leaves one a hair short: any other reader's rounding is then the same.
    corner = vec3(floor(o / s + 0.5 + 1e-6) for o, s in zip(offset_nm, voxel_size_nm, strict=True))
    levels = [MipLevel(extent, corner, voxel_size_nm)]
    for factor in factors:
        fine = levels[-1]
        low = fine.voxel_offset // factor
        high = (fine.voxel_offset + fine.extent).ceil_div(factor)
        size = float_vec3(s * f for s, f in zip(fine.voxel_size_nm, factor, strict=True))
        levels.append(MipLevel(high - low, low, size))
    return levels


def cloud_path(url: str) -> str:
    """The name cloud-volume knows a local path or URL by.

    ``s3://`` goes to AWS_ENDPOINT_URL where that is set, as it does for zarr: boto3 below cloud-files reads it too.
    """
    return f"precomputed://{url}" if is_remote(url) else f"precomputed://file://{url.removeprefix('file://')}"


def _cloud_volume(url: str, mip: int, info: dict[str, Any] | None = None) -> Any:
    # Imported here: it takes a second, and planning an export needs this module's geometry alone.
    from cloudvolume import CloudVolume
    from cloudvolume.exceptions import InfoUnavailableError

    if url.startswith("s3://") and "AWS_ACCESS_KEY_ID" in os.environ:
        # cloud-files 6.4 raises KeyError for keys in the environment without a session token; empty means none.
        os.environ.setdefault("AWS_SESSION_TOKEN", "")
    try:
        return CloudVolume(
            cloud_path(url), mip=mip if info is None else 0, info=info, provenance={}, cache=False, progress=False,
            parallel=1, bounded=True, fill_missing=True, non_aligned_writes=False,
        )  # fmt: skip
    except InfoUnavailableError as error:
        raise BadInput(url, "a precomputed volume has an info file", "none is there", "Check the path.") from error
    except IndexError as error:
        raise BadInput(f"{url}, mip {mip}", "the mip must exist", str(error)) from error


def _scale(url: str, info: dict[str, Any], mip: int) -> Any:
    if info["num_channels"] != 1:
        raise BadInput(url, "a volume has one channel", f"this one has {info['num_channels']}", "Extract one channel.")
    return info["scales"][mip]


def _mip(url: str, path: str) -> int:
    if path and not path.isdigit():
        raise BadInput(f"{url}:{path}", "the path inside a precomputed volume is the number of a mip", nearest="Try 0.")
    return int(path or 0)


def _scale_entry(level: MipLevel, chunk: Vec3, kind: Kind, dtype: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": "_".join(f"{value:.10g}" for value in reversed(level.voxel_size_nm)),
        "encoding": "raw",
        "resolution": [int(value) if value == int(value) else value for value in reversed(level.voxel_size_nm)],
        "voxel_offset": list(level.voxel_offset[::-1]),
        "size": list(level.extent[::-1]),
        "chunk_sizes": [list(chunk[::-1])],
    }
    if kind == "segmentation" and dtype in ("uint32", "uint64"):
        entry |= {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    return entry


def _zyx(values: Sequence[int]) -> Vec3:
    return vec3(reversed(values))


def _bbox(box: Box) -> Any:
    return _bbox_class()(box.start[::-1], box.stop[::-1])


@lru_cache(maxsize=1)
def _bbox_class() -> Any:
    from cloudvolume import Bbox

    return Bbox


@lru_cache(maxsize=1)
def torn_chunk_errors() -> tuple[type[Exception], ...]:
    """What cloud-volume and its codecs raise for a torn chunk, as far as it derives from Exception directly."""
    from cloudfiles.compression import DecompressionError
    from cloudfiles.exceptions import IntegrityError
    from cloudvolume.exceptions import DecodingError, EmptyFileException

    errors = (DecompressionError, IntegrityError, DecodingError, EmptyFileException)
    if find_spec("deflate") is None:  # cloud-files then uses gzip, whose errors are OSErrors
        return errors
    return *errors, import_module("deflate").DeflateError
