"""Random crops of labelled volumes, as batches for the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import Box, Triple, Vec3, vec3
from pipeline.training.augment import Augmentation, augmented, window
from pipeline.training.raw import drawn_volume
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.targets import MARGIN, targets
from pipeline.training.segmentation.volumes import LabelledVolume


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
        start = self._start(rng, volume, crop) - (vec3(size) - crop) // 2
        return mirrored(volume.raw, start, size), mirrored(volume.instances, start, size)

    def _start(self, rng: np.random.Generator, volume: LabelledVolume, crop: Triple) -> Vec3:
        """First voxel of the crop: uniform, or (with chance `foreground`) so that it holds a drawn foreground voxel."""
        last = vec3(volume.raw.shape) - crop
        if rng.random() >= self.config.foreground:
            return vec3(rng.integers(0, most + 1) for most in last)
        voxel = vec3(np.unravel_index(int(rng.choice(volume.foreground)), volume.raw.shape))
        return (voxel - vec3(rng.integers(0, size) for size in crop)).max(0).min(last)


def mirrored(array: NDArray[Any], start: Triple, size: Triple) -> NDArray[Any]:
    """A box (z, y, x) that may reach beyond the array, there mirrored at the border without repeating its voxels."""
    box, whole = Box(start, vec3(start) + size), Box.of_shape(array.shape)
    if whole.contains(box):
        return np.ascontiguousarray(array[box.slices()])
    inside = box.clipped(whole)
    low, high = inside.start - box.start, box.stop - inside.stop
    if low.max(high).all_below(inside.shape):
        return np.pad(array[inside.slices()], list(zip(low, high, strict=True)), mode="reflect")
    axes = [_folded(np.arange(a, b), n) for a, b, n in zip(box.start, box.stop, array.shape, strict=True)]
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
    return [_misfit(volume, crop) for crop in crops if not vec3(crop).all_at_most(volume.raw.shape)]


def _misfit(volume: LabelledVolume, crop: Triple) -> BadInput:
    z, y, x = vec3(crop).min(volume.raw.shape)
    side = min(y, x) // 16 * 16
    return BadInput(
        f"crop {crop} of {volume.name} {volume.raw.shape}",
        "the crop fits into every volume",
        "a crop is cut from inside a volume",
        f"The largest that fits is {(z, side, side)}." if side else "Give a volume of at least 16 voxels in y and x.",
    )
