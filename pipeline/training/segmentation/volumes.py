"""Labelled volumes in memory, at the voxel size the model trains at."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.geometry import Box, Triple, vec3
from pipeline.model.normalisation import histogram
from pipeline.training.raw import Size, existing, name_of, slices, stored_grey, uint8_grey
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.sources import PhantomSource, Source, VolumeSource

log = logging.getLogger(__name__)

_SIZE_RATIO = 1.5
_MOST_IDS = 2**31


@dataclass(frozen=True)
class LabelledVolume:
    """Grey levels and instances of one volume (z, y, x), at the voxel size the model trains at.

    `table` is the network's input for each of the 256 grey levels, `grey_levels` the histogram that decided it,
    `foreground` the flat indices of all voxels of an instance.
    """

    name: str
    raw: NDArray[np.uint8]
    instances: NDArray[np.int32]
    voxel_size_nm: Size
    grey_levels: NDArray[np.int64]
    table: NDArray[np.float32]
    foreground: NDArray[np.int64]
    weight: float = 1.0
    from_step: int = 0


def load_volume(source: Source, config: TrainConfig) -> LabelledVolume:
    """Read or make one volume, reduce it, and work out its normalisation.

    Raises:
        BadInput: raw and labels of different shape, no labels or no background, a mask instead of instances, or
            nothing readable there; ids that are negative or no integers.
    """
    if isinstance(source, PhantomSource):
        return _phantom(source, config)
    raw, instances, voxel_size_nm, grey_levels = _arrays(source)
    _require_same_shape(source, raw, instances)
    start, stop = slices(source, len(raw))
    raw, instances = raw[start:stop], _instances(source, instances[start:stop])
    if grey_levels is None:
        grey_levels = histogram(raw)  # before the reduction, as inference takes it
    if source.downsample != (1, 1, 1):
        raw, instances = mean_grey(raw, source.downsample), block_mode(instances, source.downsample)
    size = [float(nm * factor) for nm, factor in zip(voxel_size_nm, source.downsample, strict=True)]
    _warn_of_size(name_of(source), size, config)
    return _volume(name_of(source), raw, instances, (size[0], size[1], size[2]), grey_levels, source, config)


def _warn_of_size(name: str, size: Sequence[float], config: TrainConfig) -> None:
    """Warn of a resolution in the plane that the model is not made for; sections may be of any thickness."""
    ratios = [own / wanted for own, wanted in zip(size[1:], config.voxel_size_nm[1:], strict=True)]
    if not all(1 / _SIZE_RATIO <= ratio <= _SIZE_RATIO for ratio in ratios):
        shown, wanted = ("x".join(f"{nm:g}" for nm in sizes) for sizes in (size, config.voxel_size_nm))
        log.warning(
            "%s has voxels of %s nm, and the model is made for %s nm, more than 1.5 times different: set `downsample` "
            "or `voxel_size_nm`",
            name,
            shown,
            wanted,
        )


def _phantom(source: PhantomSource, config: TrainConfig) -> LabelledVolume:
    from pipeline.phantom import Phantom  # needs more packages than training on real volumes does

    phantom = Phantom(vec3(source.shape), source.phantom_seed, config.voxel_size_nm)
    raw, ids = phantom.both(phantom.box)
    name = f"phantom/{source.phantom_seed}"
    return _volume(name, raw, _renumbered(ids), config.voxel_size_nm, histogram(raw), source, config)


def _volume(
    name: str,
    raw: NDArray[np.uint8],
    instances: NDArray[np.int32],
    voxel_size_nm: Size,
    grey_levels: NDArray[np.int64],
    source: Source,
    config: TrainConfig,
) -> LabelledVolume:
    _require_both_classes(name, instances)
    statistics = config.normalisation.statistics(grey_levels)
    table = config.normalisation.apply(np.arange(256, dtype=np.uint8), statistics)
    foreground = np.flatnonzero(instances)
    return LabelledVolume(
        name, raw, instances, voxel_size_nm, grey_levels, table, foreground, source.weight, source.from_step
    )


def _arrays(source: VolumeSource) -> tuple[NDArray[np.uint8], NDArray[Any], Sequence[float], NDArray[np.int64] | None]:
    if source.raw.endswith(".npz"):
        with np.load(existing(source.raw), allow_pickle=False) as stored:
            size = [float(nm) for nm in stored["voxel_size_nm"]]
            return uint8_grey(source, stored["raw"]), stored["instances"], size, stored.get("histogram")
    if source.instances is None:
        raise BadInput(
            source.raw,
            "a volume that is no .npz also names its `instances`",
            "an image file holds no labels",
            "Give their address.",
        )
    return _stored(source, source.instances)


def _stored(source: VolumeSource, labels: str) -> tuple[NDArray[np.uint8], NDArray[Any], Sequence[float], None]:
    from pipeline.store.volume import open_volume  # more packages than training from .npz needs

    raw, size = stored_grey(source)
    truth = open_volume(os.path.expandvars(labels))
    if size is None:
        raise BadInput(
            source.raw,
            "the voxel size must be known",
            "this file does not state one, and the model is made for one",
            "Give `voxel_size_nm`, z y x.",
        )
    return raw, truth.read(truth.box), size, None


def _require_same_shape(source: VolumeSource, raw: NDArray[Any], instances: NDArray[Any]) -> None:
    if raw.shape != instances.shape or raw.ndim != 3:
        raise BadInput(
            f"{source.raw}: raw {raw.shape}, instances {instances.shape}",
            "both are 3-D and of the same shape",
            "every voxel needs its label",
            "Cut both to the same box (z, y, x).",
        )


def _require_ids(source: VolumeSource, labels: NDArray[Any]) -> None:
    found = f"dtype {labels.dtype}" if labels.dtype.kind not in "biu" else f"the id {labels.min()}"
    if labels.dtype.kind in "bu" or (labels.dtype.kind == "i" and labels.min() >= 0):
        return
    raise BadInput(
        f"{source.instances or source.raw}: labels with {found}",
        "instance ids are integers of 0 and above",
        "0 is the background and every other id an object; a class that means 'unlabelled' would be learnt as one",
        "Store them as uint16 or uint32, with 0 where there is no object.",
    )


def _instances(source: VolumeSource, labels: NDArray[Any]) -> NDArray[np.int32]:
    """Labels as int32 ids; a mask as its components, where the source says it is one, else refused."""
    from pipeline.instances.ops.label import label

    _require_ids(source, labels)
    if source.mask_connectivity is not None:
        mask = labels != 0 if source.mask_class is None else labels == source.mask_class
        return label(mask, source.mask_connectivity)[0].astype(np.int32)
    ids = _renumbered(labels)
    if ids.size and ids.max() == 1 and ids.min() == 0 and (pieces := _pieces(ids)) > 1:
        raise BadInput(
            f"{source.instances or source.raw}: a single id in {pieces} separate pieces",
            "every object has an id of its own",
            "this looks like a mask, and boundaries between objects cannot be told from it",
            "Give instance labels, or set mask_connectivity: 26 to take each connected piece as an object.",
        )
    return ids


def _pieces(mask: NDArray[np.int32]) -> int:
    """Connected pieces of a mask; 1 where nothing is installed that counts them."""
    from pipeline.instances.ops.label import label

    try:
        return label(mask != 0, 26)[1]
    except ModuleNotFoundError:
        return 1


def _renumbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Ids as int32; from 2^31 on they are replaced by their ranks, 0 staying the background."""
    if labels.size and labels.max() < _MOST_IDS:
        return labels.astype(np.int32)
    known = np.union1d(labels, np.zeros(1, labels.dtype))
    return np.searchsorted(known, labels).astype(np.int32)


def _require_both_classes(name: str, instances: NDArray[np.int32]) -> None:
    if not instances.any():
        raise BadInput(
            name,
            "the instances hold at least one object",
            "a network cannot learn from background alone",
            "Check that the right file is named and z_range is right; a phantom may be too small.",
        )
    if instances.all():
        raise BadInput(
            name,
            "the instances leave some background (0)",
            "a network cannot learn from a single class",
            "Check that 0 is the background and that the labels are not of another structure.",
        )


def mean_grey(raw: NDArray[np.uint8], factors: Triple) -> NDArray[np.uint8]:
    """Mean of each block of voxels, rounded to the nearest grey level; what fills no whole block is cut off."""
    blocks = _blocks(raw, factors).astype(np.float32)
    mean: NDArray[np.uint8] = np.rint(blocks.mean(axis=-1)).astype(np.uint8)
    return mean


def block_mode(labels: NDArray[np.int32], factors: Triple) -> NDArray[np.int32]:
    """The most frequent label of each block of voxels; on a tie the highest, so an object rather than background."""
    blocks = np.sort(_blocks(labels, factors), axis=-1)
    best, most = blocks[..., 0].copy(), np.zeros(blocks.shape[:-1], dtype=np.uint16)
    for candidate in np.moveaxis(blocks, -1, 0):
        count = (blocks == candidate[..., None]).sum(axis=-1, dtype=np.uint16)
        best, most = np.where(count >= most, candidate, best), np.maximum(count, most)
    return best


def _blocks(array: NDArray[Any], factors: Triple) -> NDArray[Any]:
    """(z, y, x) -> (z/fz, y/fy, x/fx, voxels of a block)."""
    counts = vec3(array.shape) // factors
    whole = array[Box.of_shape(counts * factors).slices()]
    sides = [side for pair in zip(counts, factors, strict=True) for side in pair]
    return whole.reshape(sides).transpose(0, 2, 4, 1, 3, 5).reshape(*counts, -1)
