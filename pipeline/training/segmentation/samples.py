"""Random crops of labelled volumes, as batches for the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import BadInput, raise_all
from pipeline.training.augment import Augmentation, augmented, window
from pipeline.training.raw import drawn_volume
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.targets import MARGIN, targets
from pipeline.training.segmentation.volumes import LabelledVolume
from pipeline.training.sources import Triple


class Samples:
    """Batches of crops, each decided by (seed, step, shard) alone, so that a resumed run sees the same ones.

    Args:
        volumes: drawn from by their weights.
        config: of the training.
        shards: equal parts that a step's batch is split into.

    Raises:
        BadInput: a volume is smaller than a crop.
    """

    def __init__(self, volumes: Sequence[LabelledVolume], config: TrainConfig, shards: int = 1) -> None:
        self.volumes, self.config, self.shards = list(volumes), config, shards
        raise_all([problem for volume in volumes for problem in _misfits(volume, config)])

    def batch(
        self, step: int, shard: int = 0, is_augmented: bool = True, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Input (N, 1, D, H, W) and targets (N, 2, D, H, W), float32, of one shard of a step's batch.

        Windows go to the device as uint8 and are augmented there.
        """
        rng = np.random.default_rng([self.config.seed, step, shard])
        number = self.config.stage(step).batch // self.shards
        crops = [self._crop(rng, step, is_augmented, torch.device(device)) for _ in range(number)]
        inputs, labels = zip(*crops, strict=True)
        return torch.stack(inputs)[:, None], torch.stack(labels)

    def _crop(
        self, rng: np.random.Generator, step: int, is_augmented: bool, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        volume = self._chosen(rng, step)
        crop = self.config.stage(step).crop
        settings = self.config.augmentation if is_augmented else Augmentation.none()
        size = (crop[0], crop[1] + 2 * MARGIN, crop[2] + 2 * MARGIN)  # what decides the targets of the crop
        grey, ids = self._window(rng, volume, crop, window(size, settings))
        raw = torch.from_numpy(volume.table).to(device)[torch.from_numpy(grey).to(device).long()]
        raw, instances = augmented(raw, torch.from_numpy(ids).to(device), size, rng, settings)
        inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        return raw[inner], targets(instances)[inner]

    def _chosen(self, rng: np.random.Generator, step: int) -> LabelledVolume:
        return drawn_volume(rng, [volume for volume in self.volumes if volume.from_step <= step])

    def _window(
        self, rng: np.random.Generator, volume: LabelledVolume, crop: Triple, size: Triple
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """A window around a crop that lies inside the volume; beyond the border the volume is mirrored."""
        starts = [
            start - (whole - inner) // 2
            for start, whole, inner in zip(self._start(rng, volume, crop), size, crop, strict=True)
        ]
        return mirrored(volume.raw, starts, size), mirrored(volume.instances, starts, size)

    def _start(self, rng: np.random.Generator, volume: LabelledVolume, crop: Triple) -> list[int]:
        """First voxel of the crop: uniform, or (with chance `foreground`) so that it holds a drawn foreground voxel."""
        last = [extent - size for extent, size in zip(volume.raw.shape, crop, strict=True)]
        if rng.random() >= self.config.foreground:
            return [int(rng.integers(0, most + 1)) for most in last]
        voxel = np.unravel_index(int(rng.choice(volume.foreground)), volume.raw.shape)
        offsets = [int(rng.integers(0, size)) for size in crop]
        return [int(np.clip(v - o, 0, most)) for v, o, most in zip(voxel, offsets, last, strict=True)]


def mirrored(array: NDArray[Any], starts: Sequence[int], size: Triple) -> NDArray[Any]:
    """A box (z, y, x) that may reach beyond the array, there mirrored at the border without repeating its voxels."""
    stops = [start + length for start, length in zip(starts, size, strict=True)]
    low = [max(0, -start) for start in starts]
    high = [max(0, stop - extent) for stop, extent in zip(stops, array.shape, strict=True)]
    if not any(low) and not any(high):
        return np.ascontiguousarray(array[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))])
    inside = array[tuple(slice(max(0, a), b) for a, b in zip(starts, stops, strict=True))]
    if all(max(pair) < extent for *pair, extent in zip(low, high, inside.shape, strict=True)):
        return np.pad(inside, list(zip(low, high, strict=True)), mode="reflect")
    axes = [_folded(np.arange(a, b), extent) for a, b, extent in zip(starts, stops, array.shape, strict=True)]
    return array[np.ix_(*axes)]


def _folded(positions: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    if extent == 1:
        return np.zeros_like(positions)
    period = 2 * (extent - 1)
    folded = np.abs(positions) % period
    indices: NDArray[np.int64] = np.minimum(folded, period - folded)
    return indices


def _misfits(volume: LabelledVolume, config: TrainConfig) -> list[BadInput]:
    crops = dict.fromkeys(stage.crop for stage in config.stages)
    return [_misfit(volume, crop) for crop in crops if any(c > s for c, s in zip(crop, volume.raw.shape, strict=True))]


def _misfit(volume: LabelledVolume, crop: Triple) -> BadInput:
    z, y, x = (min(size, extent) for size, extent in zip(crop, volume.raw.shape, strict=True))
    side = min(y, x) // 16 * 16
    return BadInput(
        f"crop {crop} of {volume.name} {volume.raw.shape}",
        "the crop fits into every volume",
        "a crop is cut from inside a volume",
        f"The largest that fits is {(z, side, side)}." if side else "Give a volume of at least 16 voxels in y and x.",
    )
