"""Random crops of labelled volumes, as batches for the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import BadInput
from pipeline.training import augment
from pipeline.training.config import TrainConfig
from pipeline.training.targets import MARGIN, targets
from pipeline.training.volumes import LabelledVolume


class Samples:
    """Batches of crops, each decided by (seed, step, shard) alone, so that a resumed run sees the same ones.

    Raises:
        BadInput: a volume is smaller than the crop.
    """

    def __init__(self, volumes: Sequence[LabelledVolume], config: TrainConfig) -> None:
        self.volumes, self.config = list(volumes), config
        for volume in volumes:
            _fits(volume, config.crop)

    def batch(self, step: int, shard: int = 0, augmented: bool = True) -> tuple[Tensor, Tensor]:
        """Input (N, 1, D, H, W) and targets (N, 2, D, H, W), float32, of one shard of a step's batch."""
        rng = np.random.default_rng([self.config.seed, step, shard])
        crops = [self._crop(rng, step, augmented) for _ in range(self.config.batch // self.config.shards)]
        inputs, labels = zip(*crops, strict=True)
        return torch.stack(inputs)[:, None], torch.stack(labels)

    def _crop(self, rng: np.random.Generator, step: int, augmented: bool) -> tuple[Tensor, Tensor]:
        volume = self._chosen(rng, step)
        size = self.config.crop[1] + 2 * MARGIN
        extent = augment.reach(size, self.config.augmentation)
        raw, instances = self._window(rng, volume, (self.config.crop[0], extent, extent))
        chances = self.config.augmentation if augmented else _NOTHING
        raw, instances = augment.geometry(raw, instances, size, rng, chances)
        raw = augment.intensity(raw, rng, chances) if augmented else raw
        inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        return raw[inner], targets(instances)[inner]

    def _chosen(self, rng: np.random.Generator, step: int) -> LabelledVolume:
        active = [volume for volume in self.volumes if volume.from_step <= step]
        weights = np.array([volume.weight for volume in active])
        return active[int(rng.choice(len(active), p=weights / weights.sum()))]

    def _window(
        self, rng: np.random.Generator, volume: LabelledVolume, window: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """A window whose central crop lies inside the volume; beyond the border the volume is mirrored."""
        starts = self._start(rng, volume)
        crop = self.config.crop
        axes = [
            _mirrored(np.arange(start - (size - inner) // 2, start - (size - inner) // 2 + size), extent)
            for start, size, inner, extent in zip(starts, window, crop, volume.raw.shape, strict=True)
        ]
        box = np.ix_(*axes)
        raw = self.config.normalisation.apply(volume.raw[box], volume.statistics)
        return torch.from_numpy(raw), torch.from_numpy(volume.instances[box])

    def _start(self, rng: np.random.Generator, volume: LabelledVolume) -> list[int]:
        """First voxel of the crop: uniform, or (with chance `foreground`) so that it holds a drawn foreground voxel."""
        shape, crop = volume.raw.shape, self.config.crop
        last = [extent - size for extent, size in zip(shape, crop, strict=True)]
        if rng.random() >= self.config.foreground:
            return [int(rng.integers(0, most + 1)) for most in last]
        voxel = np.unravel_index(int(rng.choice(volume.foreground)), shape)
        offsets = [int(rng.integers(0, size)) for size in crop]
        return [int(np.clip(v - o, 0, most)) for v, o, most in zip(voxel, offsets, last, strict=True)]


_NOTHING = TrainConfig.model_fields["augmentation"].default.model_copy(update={"affine": 0.0})


def _fits(volume: LabelledVolume, crop: tuple[int, int, int]) -> None:
    if any(size > extent for size, extent in zip(crop, volume.raw.shape, strict=True)):
        nearest = tuple(min(size, extent) for size, extent in zip(crop, volume.raw.shape, strict=True))
        raise BadInput(
            f"crop {crop} of {volume.name} {volume.raw.shape}",
            "the crop fits into every volume",
            "a crop is cut from inside a volume",
            f"The largest that fits is {nearest} (y and x multiples of 16).",
        )


def _mirrored(positions: NDArray[np.int64], extent: int) -> NDArray[np.int64]:
    """Indices reflected at both ends without repeating the edge voxel."""
    if extent == 1:
        return np.zeros_like(positions)
    period = 2 * (extent - 1)
    folded = np.abs(positions) % period
    indices: NDArray[np.int64] = np.minimum(folded, period - folded)
    return indices
