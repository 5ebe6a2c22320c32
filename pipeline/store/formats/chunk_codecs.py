"""What compresses the chunks that teramito stores: zstd, and for labels shuffled Blosc, made of the bytes they fill.

Shuffling puts the lowest bytes of all voxels before their second bytes, and so on. Ids fill a few of their eight bytes,
and a plane of zeros is compressed once for all: a frame costs its used planes. Any Blosc reads it.
Source of the layout: README_CHUNK_FORMAT.rst of c-blosc 1.21.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numcodecs import Blosc, Zstd

from pipeline.arrays import Array
from pipeline.geometry import Triple

Bytes = npt.NDArray[np.uint8]

LEAST_SPLIT = 128  # voxels: Blosc keeps the planes of smaller blocks together
LARGEST_BLOSC = 2**29  # bytes of a chunk; Blosc takes blocks of up to 683 MB
_HEADER = struct.Struct(
    "<4B3I"
)  # format, zstd's version, flags, bytes a voxel; bytes: of the chunk, a block, the frame
_FORMAT, _ZSTD_VERSION, _SHUFFLED, _ZSTD_FLAG = 2, 1, 0x01, 4 << 5
_LENGTH = struct.Struct("<I")
_AT = _HEADER.size + _LENGTH.size  # where the only block starts, as is said in front of it
_PLANE = Zstd(level=1)
_BLOSC = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)


class ChunkCodec(Protocol):
    """Compresses whole chunks of one dtype."""

    def encode(self, chunk: Array) -> bytes:
        """The stored bytes of a chunk; of its dtype or, unsigned, a narrower one."""
        ...

    def decode(self, stored: bytes, target: Array) -> None:
        """Fill a C-contiguous chunk.

        Raises:
            ValueError, RuntimeError, struct.error: the bytes are torn, or those of a chunk of another size.
        """
        ...


def wanted(dtype: str, chunks: Triple) -> str:
    """``blosc`` for labels and ids, ``zstd`` for everything else."""
    kind = np.dtype(dtype)
    return "blosc" if kind.kind == "u" and 1 < kind.itemsize <= LARGEST_BLOSC // prod(chunks) else "zstd"


def codec_of(dtype: np.dtype[Any], name: str, settings: Mapping[str, Any]) -> ChunkCodec | None:
    """The codec that zarr's metadata names; None where it is none of ours."""
    if name == "zstd":
        return ZstdChunks(dtype, Zstd(int(settings.get("level", 1)), bool(settings.get("checksum", False))))
    shuffled = settings.get("cname") == "zstd" and settings.get("shuffle") == "shuffle"
    if name == "blosc" and shuffled and dtype.kind == "u" and settings.get("typesize") == dtype.itemsize > 1:
        return ShuffledChunks(dtype)
    return None


class ZstdChunks:
    """Chunks as they lie in memory."""

    def __init__(self, dtype: np.dtype[Any], zstd: Zstd) -> None:
        self._dtype, self._zstd = dtype, zstd

    def encode(self, chunk: Array) -> bytes:
        """One frame."""
        return bytes(self._zstd.encode(_bytes_of(np.ascontiguousarray(chunk, self._dtype))))

    def decode(self, stored: bytes, target: Array) -> None:
        """Fill a chunk from one frame."""
        _require_size(content_size(stored), target)  # too few bytes would leave the rest of the target as it was
        self._zstd.decode(stored, _bytes_of(target))


class ShuffledChunks:
    """Chunks of unsigned integers as Blosc frames of one block, one zstd stream a byte of a voxel."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def encode(self, chunk: Array) -> bytes:
        """A frame, the same whatever the dtype of the chunk."""
        if chunk.size < LEAST_SPLIT:
            return bytes(_BLOSC.encode(np.ascontiguousarray(chunk, self._dtype)))
        return self._frame([_stream(plane) for plane in _planes(np.ascontiguousarray(chunk).reshape(-1))], chunk.size)

    def decode(self, stored: bytes, target: Array) -> None:
        """Fill a chunk from any Blosc frame."""
        _require_size(_content_size(stored), target)
        begin = _AT + _LENGTH.size
        lowest = stored[begin : begin + int.from_bytes(stored[_AT:begin], "little")]
        if len(lowest) < target.size and stored == self._frame([lowest], target.size):
            plane = np.empty(target.shape, np.uint8)
            ZstdChunks(plane.dtype, _PLANE).decode(lowest, plane)
            target[...] = plane
        else:
            _BLOSC.decode(stored, _bytes_of(target))

    def _frame(self, streams: list[bytes], voxels: int) -> bytes:
        """Of the planes' streams, lowest first; those that are left out are zeros."""
        streams = streams + [_zeros(voxels)] * (self._dtype.itemsize - len(streams))
        size, length = voxels * self._dtype.itemsize, _AT + sum(_LENGTH.size + len(stream) for stream in streams)
        flags = _SHUFFLED | _ZSTD_FLAG
        header = _HEADER.pack(_FORMAT, _ZSTD_VERSION, flags, self._dtype.itemsize, size, size, length)
        parts = (part for stream in streams for part in (_LENGTH.pack(len(stream)), stream))
        return b"".join([header, _LENGTH.pack(_AT), *parts])


def content_size(frame: bytes) -> int:
    """Bytes in a zstd frame, by its header (RFC 8878, 3.1.1.1).

    Raises:
        ValueError: it is no zstd frame, or its header is cut short.
    """
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("a chunk that is no zstd frame")
    kind, single, dictionary = frame[4] >> 6, frame[4] >> 5 & 1, frame[4] & 3
    at = 6 - single + (0, 1, 2, 4)[dictionary]
    length = (single, 2, 4, 8)[kind]
    if len(frame) < at + length:
        raise ValueError("a chunk that is cut short")
    return int.from_bytes(frame[at : at + length], "little") + (256 if length == 2 else 0)


def _content_size(frame: bytes) -> int:
    """Bytes in a Blosc frame, by its header; a frame that is cut short is refused, for Blosc does not look."""
    *_, size, _, length = _HEADER.unpack_from(frame)
    if length != len(frame):
        raise ValueError(f"a chunk of {len(frame)} stored bytes instead of {length}")
    return int(size)


def _planes(voxels: Array) -> list[Bytes]:
    """The lowest bytes of all voxels, their second bytes, ...: as many as the largest fills."""
    used = -(-int(voxels.max(initial=0)).bit_length() // 8)
    return [_plane(voxels, place) for place in range(used)]


def _plane(voxels: Array, place: int) -> Bytes:
    if not place:
        return voxels.astype(np.uint8, copy=False)
    plane = np.empty(voxels.shape, np.uint8)  # 0.2 ms for 2 million uint16, 0.5 by way of shifted ones
    return np.right_shift(voxels, np.uint8(8 * place), out=plane, casting="unsafe")


def _stream(plane: Bytes) -> bytes:
    stream = bytes(_PLANE.encode(plane))
    return stream if len(stream) < plane.size else plane.tobytes()  # as Blosc tells them apart


@lru_cache(maxsize=16)
def _zeros(voxels: int) -> bytes:
    return _stream(np.zeros(voxels, np.uint8))


def _require_size(size: int, target: Array) -> None:
    if size != target.nbytes:
        raise ValueError(f"a chunk of {size} bytes instead of {target.nbytes}")


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
