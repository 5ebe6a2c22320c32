"""Chunks of a local zarr v3 array, read and written as files: for the arrays that teramito itself stores.

With zarr-python and the zarrs codecs a 128^3 chunk of labels takes 11.4 ms to write as uint64 (4.5 as uint32) and 4.1
to read (2.9), mostly for copies, and labelling does little else. Arrays in any other layout are left to zarr.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.arrays import Array
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.files import write_whole
from pipeline.store.formats.chunk_codecs import ChunkCodec, codec_of

_DTYPES = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")


@dataclass(frozen=True)
class ChunkFiles:
    """The chunks ``folder/c/z/y/x`` of an array of three axes; a chunk that is not there is all zeros.

    Attributes:
        folder: of the array.
        grid: the chunks; those at the far ends are stored whole too.
        dtype: little-endian.
        codec: what each chunk is compressed by.
    """

    folder: Path
    grid: BlockGrid
    dtype: np.dtype[Any]
    codec: ChunkCodec

    @classmethod
    def of(cls, folder: Path, metadata: Mapping[str, Any]) -> Self | None:
        """Of an array with this ``zarr.json``; None where it is not laid out as ``ome_zarr.create`` does."""
        codecs = [(codec["name"], codec.get("configuration", {})) for codec in metadata.get("codecs", ())]
        chunks = metadata.get("chunk_grid", {})
        keys = metadata.get("chunk_key_encoding", {})
        known = (
            len(metadata["shape"]) == 3
            and [name for name, _ in codecs[:-1]] == ["bytes"]
            and codecs[0][1].get("endian", "little") == "little"
            and chunks.get("name") == "regular"
            and keys.get("name") == "default"
            and keys.get("configuration", {}).get("separator", "/") == "/"
            and metadata.get("fill_value") == 0
            and not metadata.get("storage_transformers")
        )
        if not known or metadata["data_type"] not in _DTYPES:
            return None
        grid = BlockGrid(vec3(metadata["shape"]), vec3(chunks["configuration"]["chunk_shape"]))
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        codec = codec_of(dtype, *codecs[1])
        return None if codec is None else cls(folder, grid, dtype, codec)

    def read(self, box: Box) -> Array:
        """The voxels of a box inside the array."""
        array = np.empty(box.shape, self.dtype)
        for index, whole, part in self._covering(box):
            target = array[part.slices(box.start)]
            stored = self._stored(index)
            if stored is None:
                target[...] = 0
            elif part == whole and target.flags.c_contiguous:
                self.codec.decode(stored, target)
            else:
                chunk = np.empty(self.grid.block, self.dtype)
                self.codec.decode(stored, chunk)
                target[...] = chunk[part.slices(whole.start)]
        return array

    def write(self, box: Box, array: Array) -> None:
        """Store whole chunks; one of zeros is taken away instead, as zarr does.

        Args:
            box: starts and ends at chunks, or at the end of the array.
            array: of its shape; unsigned, it may be narrower than what is stored, and is then not widened in memory.
        """
        narrow = array.dtype.kind == self.dtype.kind == "u" and array.dtype.itemsize < self.dtype.itemsize
        dtype = array.dtype if narrow else self.dtype
        for index, whole, part in self._covering(box):
            chunk = np.ascontiguousarray(array[part.slices(box.start)], dtype)
            if part != whole:
                padded = np.zeros(self.grid.block, dtype)
                padded[part.slices(whole.start)] = chunk
                chunk = padded
            path = self._path(index)
            if chunk.any():
                write_whole(path, self.codec.encode(chunk))
            else:
                path.unlink(missing_ok=True)

    def _covering(self, box: Box) -> Iterator[tuple[Vec3, Box, Box]]:
        """Index and box of each chunk that meets a box, and the part of the box in it."""
        for chunk in self.grid.covering(box):
            start = chunk.core.start
            whole = Box(start, start + self.grid.block)
            yield chunk.index, whole, whole.clipped(box)

    def _stored(self, index: Vec3) -> bytes | None:
        try:
            return self._path(index).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, index: Vec3) -> Path:
        z, y, x = index
        return self.folder / "c" / str(z) / str(y) / str(x)
