"""Labelled volumes in memory, at the voxel size the model trains at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.model.normalisation import Statistics, histogram
from pipeline.training.config import PhantomSource, Source, TrainConfig, VolumeSource


@dataclass(frozen=True)
class LabelledVolume:
    """Grey levels and instances of one volume (z, y, x), at the voxel size the model trains at."""

    name: str
    raw: NDArray[np.uint8]
    instances: NDArray[np.int32]
    voxel_size_nm: tuple[float, float, float]
    grey_levels: NDArray[np.int64]
    statistics: Statistics
    foreground: NDArray[np.int64]
    weight: float = 1.0
    from_step: int = 0


def load_volume(source: Source, config: TrainConfig) -> LabelledVolume:
    """Read or make one volume, reduce it, and work out its normalisation.

    Raises:
        BadInput: raw and labels of different shape, no labels, or a file that is not there.
    """
    if isinstance(source, PhantomSource):
        return _phantom(source, config)
    raw, instances, voxel_size_nm, grey_levels = _arrays(source)
    _check_arrays(source, raw, instances)
    start, stop = source.z_range or (0, raw.shape[0])
    raw, instances = raw[start:stop], instances[start:stop].astype(np.int32)
    if grey_levels is None:
        grey_levels = histogram(raw)  # before the reduction, as inference takes it
    if source.downsample != (1, 1, 1):
        raw, instances = block_mean(raw, source.downsample), block_mode(instances, source.downsample)
    name = "/".join(Path(source.raw).with_suffix("").parts[-2:])
    size = [float(nm * factor) for nm, factor in zip(voxel_size_nm, source.downsample, strict=True)]
    return _volume(name, raw, instances, (size[0], size[1], size[2]), grey_levels, source, config)


def _check_arrays(source: VolumeSource, raw: NDArray[Any], instances: NDArray[Any]) -> None:
    if raw.shape != instances.shape or raw.ndim != 3:
        raise BadInput(
            f"{source.raw}: raw {raw.shape}, instances {instances.shape}",
            "both are 3-D and of the same shape",
            "every voxel needs its label",
            "Cut both to the same box (z, y, x).",
        )
    if raw.dtype != np.uint8:
        raise BadInput(
            f"{source.raw} of dtype {raw.dtype}",
            "grey levels are uint8",
            "the normalisation counts 256 grey levels",
            "Scale them to 0..255 first, the same way for the whole volume.",
        )


def _phantom(source: PhantomSource, config: TrainConfig) -> LabelledVolume:
    from pipeline.phantom import Phantom  # needs more packages than training on real volumes does

    phantom = Phantom(source.shape, source.phantom_seed, config.voxel_size_nm)
    raw, ids = phantom.both(phantom.box)
    known = np.union1d(ids, np.zeros(1, ids.dtype))  # ids take 64 bits; their ranks, 0 the background, are few
    instances = np.searchsorted(known, ids).astype(np.int32)
    name = f"phantom/{source.phantom_seed}"
    return _volume(name, raw, instances, config.voxel_size_nm, histogram(raw), source, config)


def _volume(
    name: str,
    raw: NDArray[np.uint8],
    instances: NDArray[np.int32],
    voxel_size_nm: tuple[float, float, float],
    grey_levels: NDArray[np.int64],
    source: Source,
    config: TrainConfig,
) -> LabelledVolume:
    if not instances.any():
        raise BadInput(
            name,
            "the instances hold at least one object",
            "a network cannot learn from background alone",
            "Check that the right file is named and z_range is right; a phantom may be too small.",
        )
    return LabelledVolume(
        name,
        raw,
        instances,
        voxel_size_nm,
        grey_levels,
        config.normalisation.statistics(grey_levels),
        np.flatnonzero(instances),
        source.weight,
        source.from_step,
    )


def _arrays(
    source: VolumeSource,
) -> tuple[NDArray[np.uint8], NDArray[Any], Sequence[float], NDArray[np.int64] | None]:
    raw_path = _existing(source.raw)
    if raw_path.suffix == ".npz":
        with np.load(raw_path, allow_pickle=False) as stored:
            size = [float(nm) for nm in stored["voxel_size_nm"]]
            return stored["raw"], stored["instances"], size, stored.get("histogram")
    import tifffile  # only where TIFF stacks are read: a machine that trains from .npz does without

    if source.instances is None or source.voxel_size_nm is None:
        raise BadInput(
            source.raw,
            "a TIFF volume also names `instances` and `voxel_size_nm`",
            "a TIFF holds neither",
            "Give both, or an .npz file.",
        )
    return tifffile.imread(raw_path), tifffile.imread(_existing(source.instances)), source.voxel_size_nm, None


def _existing(path: str) -> Path:
    found = Path(os.path.expandvars(path)).expanduser()
    if not found.is_file():
        raise BadInput(
            path,
            "the file exists",
            f"there is none at {found}",
            "Correct the path, or set TERAMITO_DATA where the path names it.",
        )
    return found


def block_mean(raw: NDArray[np.uint8], factors: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Mean of each block of voxels, rounded to the nearest grey level; what fills no whole block is cut off."""
    blocks = _blocks(raw, factors).astype(np.float32)
    mean: NDArray[np.uint8] = np.rint(blocks.mean(axis=-1)).astype(np.uint8)
    return mean


def block_mode(labels: NDArray[np.int32], factors: tuple[int, int, int]) -> NDArray[np.int32]:
    """The most frequent label of each block of voxels; on a tie the highest, so an object rather than background."""
    blocks = np.sort(_blocks(labels, factors), axis=-1)
    best, most = blocks[..., 0].copy(), np.zeros(blocks.shape[:-1], dtype=np.uint16)
    for candidate in np.moveaxis(blocks, -1, 0):
        count = (blocks == candidate[..., None]).sum(axis=-1, dtype=np.uint16)
        best, most = np.where(count >= most, candidate, best), np.maximum(count, most)
    return best


def _blocks(array: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[Any]:
    """(z, y, x) -> (z/fz, y/fy, x/fx, voxels of a block)."""
    counts = [size // factor for size, factor in zip(array.shape, factors, strict=True)]
    whole = array[tuple(slice(0, n * f) for n, f in zip(counts, factors, strict=True))]
    pairs = [side for n, f in zip(counts, factors, strict=True) for side in (n, f)]
    return whole.reshape(pairs).transpose(0, 2, 4, 1, 3, 5).reshape(*counts, -1)
