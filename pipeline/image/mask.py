"""A mask of a volume: any readable volume, nonzero is marked, as fine as the volume or coarser by whole factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.engine.finished import open_complete
from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3, vec3
from pipeline.image.grey import require_finite
from pipeline.image.resample import coarse_box
from pipeline.store.volume import Volume, states_offset


@dataclass(frozen=True, slots=True)
class CoarseMask:
    """What is marked, at the resolution of a volume of shape ``extent``; one voxel of the mask covers ``factor``."""

    volume: Volume
    extent: Vec3
    factor: Vec3

    def read(self, box: Box, bits: int | None = None) -> npt.NDArray[np.bool_]:
        """Whether each voxel of a box (inside the extent) is marked: bool, z, y, x. Only the coarse box is read.

        With ``bits``, of a mask of whole numbers, only what has one of them is.
        """
        coarse = coarse_box(box, self.factor)
        mask = self._marked(coarse, bits)
        for axis in range(3):
            if self.factor[axis] > 1:
                fine = np.arange(box.start[axis], box.stop[axis])
                mask = np.take(mask, fine // self.factor[axis] - coarse.start[axis], axis=axis)
        return mask

    def any(self, box: Box, bits: int | None = None) -> bool:
        """Whether anything may be marked in a box: whether one of the coarse voxels that touch it is."""
        return bool(self._marked(coarse_box(box, self.factor), bits).any())

    def _marked(self, coarse: Box, bits: int | None) -> npt.NDArray[np.bool_]:
        values = self.volume.read(coarse)
        require_finite(self.volume, coarse, values)  # NaN is not zero, and would mark
        marked: npt.NDArray[np.bool_] = (values if bits is None else values & bits) != 0
        return marked


def open_mask(address: str, source: Volume, what: str) -> CoarseMask:
    """The mask at an address, for a volume; ``what`` it is, for messages: "the tissue mask".

    On each axis a factor f is legal where the mask has ``ceil(length / f)`` voxels. Several may be (11 voxels are 650
    in steps of 60 to 64): then the voxel sizes decide, where both files state them; else a power of two, else the
    least.

    Raises:
        BadInput: the shape is not the volume's nor coarser by whole factors, the voxel sizes contradict it, the files
            state that both begin in different places, or a run has not finished it.
    """
    volume = open_complete(address)
    spans = [_factors(n, length) for n, length in zip(source.shape, volume.shape, strict=True)]
    if not all(spans):
        raise BadInput(
            f"{what} {address} of shape {list(volume.shape)}, for a volume of shape {list(source.shape)}",
            "a mask has the volume's shape, or on each axis ceil(length / f) voxels for a whole f",
            "each of its voxels covers f voxels of the volume, beginning with the first",
            f"The nearest legal shape is {[*map(_nearest, source.shape, volume.shape)]}.",
        )
    stated = _stated_factors(f"{what} {address}", volume, source, spans)
    mask = CoarseMask(volume, source.shape, vec3(map(_factor, spans, stated)))
    _require_place(f"{what} {address}", mask, source)
    return mask


def _factors(length: int, coarse: int) -> range:
    """Every whole f up to ``length`` for which ``ceil(length / f) == coarse``."""
    if not 1 <= coarse <= length:
        return range(0)
    least = -(-length // coarse)
    return range(least, length + 1 if coarse == 1 else (length - 1) // (coarse - 1) + 1)


def _nearest(length: int, coarse: int) -> int:
    about = length // min(coarse, length)
    return min((-(-length // f) for f in (about, about + 1)), key=lambda legal: abs(legal - coarse))


def _stated_factors(what: str, volume: Volume, source: Volume, spans: list[range]) -> list[int | None]:
    """The factors by the voxel sizes, where both are stated and the shapes differ."""
    if volume.voxel_size_nm is None or source.voxel_size_nm is None or volume.shape == source.shape:
        return [None, None, None]
    ratios = [max(1, round(a / b)) for a, b in zip(volume.voxel_size_nm, source.voxel_size_nm, strict=True)]
    factors = source.shape.min(vec3(ratios))
    if not all(factor in span for factor, span in zip(factors, spans, strict=True)):
        raise BadInput(
            f"{what} with a voxel size {ratios} times that of the volume",
            f"its shape {list(volume.shape)} for {list(source.shape)} makes it [{', '.join(map(_shown, spans))}] times",
            "a mask that is laid over the wrong place marks the wrong voxels",
            "Correct the mask's voxel size.",
        )
    return list(factors)


def _require_place(what: str, mask: CoarseMask, source: Volume) -> None:
    """Refuse a mask that does not begin where the volume does, where the files state sizes and offsets of both.

    Some give the corner of the first voxel, some its centre: half a voxel of the mask beyond either is the limit.
    """
    size, volume = source.voxel_size_nm, mask.volume
    if size is None or volume.voxel_size_nm is None:
        return
    away = [(m - o) / s for m, o, s in zip(volume.offset_nm, source.offset_nm, size, strict=True)]
    if all(-f / 2 <= voxels <= f - 0.5 for voxels, f in zip(away, mask.factor, strict=True)):
        return
    if states_offset(volume) and states_offset(source):
        raise BadInput(
            f"{what} at {_place(volume)}, for a volume at {_place(source)}",
            "both begin in the same place",
            "a mask that is laid over the wrong place marks the wrong voxels",
            "Crop both alike, PATH[z0:z1,y0:y1,x0:x1], or correct the mask's offset.",
        )


def _place(volume: Volume) -> str:
    return ",".join(f"{value:g}" for value in volume.offset_nm) + " nm (z, y, x)"


def _factor(span: range, stated: int | None) -> int:
    if stated is not None:
        return stated
    power = 1 << (span.start - 1).bit_length()
    return power if power in span else span.start


def _shown(span: range) -> str:
    return f"{span[0]}" if len(span) == 1 else f"{span[0]} to {span[-1]}"
