"""Grey levels of a whole volume from a fixed sample of it: one normalisation for all blocks, recorded with the run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.arrays import Array, UInt8
from pipeline.errors import BadInput
from pipeline.geometry import Box, vec3
from pipeline.image.quantise import rounded
from pipeline.store.volume import Volume

SAMPLE_SHAPE = vec3((4, 256, 256))
SAMPLES_PER_AXIS = (8, 3, 3)
# Percentiles of the samples that become 0 and 255 for data of more than 8 bits: outliers must not squeeze the tissue.
WIDE_PERCENTILES = (0.1, 99.9)
READABLE = "uint8, uint16, int16, float16, float32 or float64"


class GreyScale(BaseModel):
    """Linear map of stored values to grey levels 0..255: ``(value - black) / (white - black) * 255``, clipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    black: float = 0.0
    white: float = 255.0

    def to_grey(self, raw: Array) -> Array:
        """Grey levels; uint8 data with the identity map is returned as it is, everything else becomes float32.

        Zero, the value of padding, stays exactly zero.
        """
        if raw.dtype == np.uint8 and (self.black, self.white) == (0.0, 255.0):
            return raw
        grey = np.clip((raw.astype(np.float32) - self.black) * (255.0 / (self.white - self.black)), 0.0, 255.0)
        grey[raw == 0] = 0.0
        return np.asarray(grey, np.float32)


def require_grey(volume: Volume, address: str) -> None:
    """Refuse a volume whose dtype cannot be an EM image."""
    dtype = np.dtype(volume.dtype)
    if dtype.kind == "f" or (dtype.kind in "ui" and dtype.itemsize <= 2 and dtype != np.int8):
        return
    raise BadInput(
        f"{address} of dtype {volume.dtype}",
        f"an EM volume is {READABLE}",
        "other types are masks or labels, and the network would see noise",
        "Give the raw image, or convert it first.",
    )


def sample_grey(volume: Volume) -> tuple[GreyScale, npt.NDArray[np.int64]]:
    """The grey scale of a volume and the histogram (256 bins) of its samples on that scale, zeros excluded.

    Reads at most 72 boxes of 4x256x256 voxels on a lattice fixed to the volume.

    Raises:
        BadInput: a sample holds NaN or infinity (names the box).
    """
    samples = [_values(volume, box) for box in sample_boxes(volume)]
    scale = _grey_scale(volume, samples)
    histogram = np.zeros(256, np.int64)
    for values in samples:
        grey = np.floor(scale.to_grey(values)).astype(np.int64)
        histogram += np.bincount(grey[values != 0], minlength=256)
    return scale, histogram


def sample_boxes(volume: Volume) -> Iterator[Box]:
    """The sampled boxes, spread evenly from border to border."""
    shape = SAMPLE_SHAPE.min(volume.shape)
    starts = [
        np.unique(np.linspace(0, n - s, count).astype(int)).tolist()
        for n, s, count in zip(volume.shape, shape, SAMPLES_PER_AXIS, strict=True)
    ]
    for start in map(vec3, product(*starts)):
        yield Box(start, start + shape)


def require_finite(volume: Volume, box: Box, values: Array) -> None:
    """Refuse NaN and infinity in float data, naming the box they were read from."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise BadInput(
            str(volume),
            f"{bad} voxels in box {box} are NaN or infinite",
            "they spread through the network and the labels",
            "Replace them with 0, which counts as empty.",
        )


def _values(volume: Volume, box: Box) -> Array:
    values = volume.read(box).ravel()
    require_finite(volume, box, values)
    return values


def _grey_scale(volume: Volume, samples: list[Array]) -> GreyScale:
    if volume.dtype == "uint8":
        return GreyScale()
    filled = np.concatenate([values[values != 0] for values in samples])
    if not filled.size:
        return GreyScale()
    black, white = (float(value) for value in np.percentile(filled.astype(np.float64), WIDE_PERCENTILES))
    return GreyScale(black=black, white=white if white > black else black + 1.0)


def grey_levels(scale: GreyScale, raw: Array) -> UInt8:
    """Grey levels of stored values; zero, which is padding, stays zero, and nothing else becomes it."""
    # Slice by slice: float32 takes four times the memory of the grey levels, and more in between.
    return np.stack([_levels(scale, plane) for plane in raw])


def _levels(scale: GreyScale, raw: Array) -> UInt8:
    grey = scale.to_grey(raw)
    return grey if grey.dtype == np.uint8 else np.where(raw != 0, np.maximum(rounded(grey), 1), np.uint8(0))
