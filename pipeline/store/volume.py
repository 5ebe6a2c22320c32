"""``Volume``: the address of a stored array, with its voxel size and offset. Small, frozen, picklable.

The array behind it is opened once per process and never travels. All axes are z, y, x.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from pipeline.arrays import Array
from pipeline.errors import BadInput, Unreadable
from pipeline.geometry import ORIGIN, Box, FloatVec3, Vec3, float_vec3, vec3
from pipeline.store.formats import Description, Handle, format_module
from pipeline.store.formats.address import Address, Span, parse

_T = TypeVar("_T")

# A reset connection, a server that is busy: worth another try. Everything else is raised as it is.
TRANSIENT = (ConnectionError, TimeoutError, InterruptedError)
# What stores and codecs raise for something torn or unreadable; a programming error (TypeError, ...) is not among them.
UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, EOFError, struct.error, zlib.error)
RETRY_DELAYS_S = (0.2, 1.0, 5.0)
VOXEL_SIZE_TOLERANCE = 0.01  # relative; the headers of real files round to about three digits


@dataclass(frozen=True, slots=True)
class Volume:
    """The address of a 3-D array.

    ``shape`` and ``origin`` are voxels: a cropped volume is the box ``origin .. origin + shape`` of the stored array.
    ``voxel_size_nm`` is None where neither file nor user stated it; ``offset_nm`` is the position of voxel (0, 0, 0).
    ``notes`` are for the user (see ``Description``): they tell nothing of which volume it is.
    """

    url: str
    path: str
    format: str
    shape: Vec3
    dtype: str
    chunks: Vec3
    voxel_size_nm: FloatVec3 | None = None
    offset_nm: FloatVec3 = (0.0, 0.0, 0.0)
    origin: Vec3 = ORIGIN
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("shape", "chunks", "origin"):  # plain tuples are taken too: they have no arithmetic
            object.__setattr__(self, name, vec3(getattr(self, name)))

    @property
    def box(self) -> Box:
        """The whole volume in its own voxels."""
        return Box.of_shape(self.shape)

    @property
    def nbytes(self) -> int:
        """Uncompressed bytes of the true extent."""
        return self.box.size * np.dtype(self.dtype).itemsize

    def read(self, box: Box) -> Array:
        """The voxels of ``box``, C-contiguous in native byte order; voxels outside the volume read as zero.

        Raises:
            Unreadable: the stored bytes are torn or unreadable; names the volume and the box.
            ConnectionError, TimeoutError, InterruptedError: the store stayed away through all tries.
        """
        inside = box.clipped(self.box)
        if inside.is_empty:
            return np.zeros(box.shape, self.dtype)
        array = np.ascontiguousarray(self._stored(inside), dtype=self.dtype)
        if inside == box:
            return array
        padded = np.zeros(box.shape, self.dtype)
        padded[inside.slices(box.start)] = array
        return padded

    def write(self, box: Box, array: Array) -> None:
        """Store ``array`` (shape of ``box``) at ``box``; unsigned arrays of a run also take narrower unsigned ones."""
        if array.shape != box.shape:
            raise ValueError(f"array of shape {array.shape} for box {box}")
        _retried(lambda: self._handle().write(box.shifted(self.origin), array))

    def cropped(self, box: Box) -> Volume:
        """The part of the volume inside ``box``, as a volume of its own with the right offset."""
        inside = box.clipped(self.box)
        size = self.voxel_size_nm or (0.0, 0.0, 0.0)
        offset = float_vec3(o + s * v for o, s, v in zip(self.offset_nm, inside.start, size, strict=True))
        return replace(self, shape=inside.shape, origin=inside.start + self.origin, offset_nm=offset)

    def _stored(self, box: Box) -> Array:
        try:
            array = _retried(lambda: self._handle().read(box.shifted(self.origin)))
        except BadInput:
            raise
        except TRANSIENT as error:
            raise type(error)(f"{self} {box}: {error}") from error
        except UNREADABLE as error:
            raise self._torn(box, f"{type(error).__name__}: {error}") from error
        if array.shape != box.shape:
            raise self._torn(box, f"the store gave {array.shape} voxels for {box.shape}")
        return array

    def _torn(self, box: Box, cause: str) -> Unreadable:
        rule, remedy = "the stored voxels must be readable", "Mend or copy the volume again."
        return Unreadable(f"{self} {box}", rule, cause.rstrip(". "), remedy, path=self.url, box=box)

    def _handle(self) -> Handle:
        # A worker outlives a run: another array at the same place is another handle.
        return _opened(self.format, self.url, self.path, (self.dtype, self.chunks, self.shape))

    def __str__(self) -> str:
        return f"{self.url}:{self.path}" if self.path else self.url


def open_volume(address: str, voxel_size_nm: FloatVec3 | None = None) -> Volume:
    """Find the array an address names (see ``formats.address``) and read its description, not its voxels.

    Args:
        address: path or URL, with an optional dataset and crop.
        voxel_size_nm: z, y, x; needed where the file does not state it, refused where it contradicts the file.

    Raises:
        BadInput: nothing readable is there, the array is not 3-D, is empty or contradicts ``voxel_size_nm``.
    """
    parsed = parse(address)
    description = _described(parsed, address)
    volume = Volume(
        url=parsed.url,
        path=parsed.path,
        format=parsed.format,
        shape=description.shape,
        dtype=description.dtype,
        chunks=description.chunks,
        voxel_size_nm=_voxel_size(address, description.voxel_size_nm, voxel_size_nm),
        offset_nm=description.offset_nm or (0.0, 0.0, 0.0),
        notes=description.notes,
    )
    _require_extent(address, volume)
    return volume if parsed.crop is None else _cropped(address, volume, parsed.crop)


def states_offset(volume: Volume) -> bool:
    """Whether the file itself says where its first voxel lies, which is else taken for 0; reads its description."""
    return format_module(volume.format).describe(volume.url, volume.path).offset_nm is not None


def _described(parsed: Address, address: str) -> Description:
    try:
        return format_module(parsed.format).describe(parsed.url, parsed.path)
    except BadInput:
        raise
    except UNREADABLE as error:
        raise BadInput(
            address, f"the {parsed.format} volume must be readable", f"opening it failed: {error}".rstrip(". ")
        ) from error


def _voxel_size(address: str, stated: FloatVec3 | None, given: FloatVec3 | None) -> FloatVec3 | None:
    if given is None or stated is None:
        return given or stated
    if all(abs(a - b) <= VOXEL_SIZE_TOLERANCE * a for a, b in zip(stated, given, strict=True)):
        return stated
    raise BadInput(
        f"{address} with voxel size {_nm(given)}",
        f"it contradicts the file, which states {_nm(stated)}",
        "a wrong voxel size scales every measurement and picks the wrong resolution for the model",
        "Leave the voxel size out, or correct the file's metadata.",
    )


def _nm(size: FloatVec3) -> str:
    return "x".join(f"{value:g}" for value in size) + " nm (z, y, x)"


def _require_extent(address: str, volume: Volume) -> None:
    if volume.box.is_empty:
        raise BadInput(address, "a volume needs at least one voxel per axis", f"its shape is {volume.shape}")


def _cropped(address: str, volume: Volume, crop: tuple[Span, Span, Span]) -> Volume:
    start = vec3(span[0] or 0 for span in crop)
    stop = vec3(n if span[1] is None else span[1] for span, n in zip(crop, volume.shape, strict=True))
    box = Box(start, stop)
    if box.is_empty or not volume.box.contains(box):
        raise BadInput(
            address,
            f"the crop {box} must lie inside the volume and hold a voxel",
            f"the volume is {volume.box}",
            f"The nearest legal crop is {box.clipped(volume.box)}.",
        )
    return volume.cropped(box)


@lru_cache(maxsize=128)
def _opened(format_name: str, url: str, path: str, _geometry: tuple[str, Vec3, Vec3]) -> Handle:
    return format_module(format_name).open_handle(url, path)


def _retried(call: Callable[[], _T]) -> _T:
    for delay in RETRY_DELAYS_S:
        try:
            return call()
        except TRANSIENT:
            time.sleep(delay)
    return call()


def required_voxel_size(volume: Volume, address: str) -> FloatVec3:
    """The voxel size of a volume, or a BadInput that says how to give it."""
    if volume.voxel_size_nm is None:
        raise BadInput(
            address,
            "the voxel size must be known",
            "this file does not state one, and the model and every measurement need it",
            "Give it in nanometres, z y x: --voxel-size-nm 30,8,8.",
        )
    return volume.voxel_size_nm
