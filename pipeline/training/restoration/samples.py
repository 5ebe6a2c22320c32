"""Random crops of neighbouring slices, as batches for a restorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import BadInput, raise_all
from pipeline.training.raw import drawn_volume
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.volumes import Stack

_EMPTY = 0.5
"""A slice of a crop with more than this share of zeros is padding or missing: nothing is learnt from it."""
_TRIES = 1000


class Batch(NamedTuple):
    """Inputs (N, C, H, W) and targets (N, 1, H, W), float32 0..1; the target's fraction of the way, (N, 1, H, W)."""

    inputs: Tensor
    targets: Tensor
    fractions: Tensor


class Samples:
    """Batches of crops, each decided by (seed, step) alone, so that a resumed training sees the same ones.

    Interpolation: input is two slices, target one between them. Noise2noise: input is one slice, target its neighbour.
    Crops are flipped, transposed, and their neighbours swapped.

    Args:
        stacks: drawn from by their weights.
        config: of the training.

    Raises:
        BadInput: a volume has fewer slices than a sample or is smaller than a crop.
    """

    def __init__(self, stacks: Sequence[Stack], config: RestorationConfig) -> None:
        size = (config.depth, *config.crop)
        raise_all([_misfit(stack, size) for stack in stacks if any(np.less(stack.raw.shape, size))])
        self._stacks, self._config = list(stacks), config

    def batch(self, step: int) -> Batch:
        """The crops of a step (the first is 0).

        Raises:
            BadInput: the volumes are all but empty.
        """
        rng = np.random.default_rng([self._config.seed, step])
        frames, fractions = zip(*(self._sample(rng) for _ in range(self._config.batch)), strict=True)
        stacked = torch.from_numpy(np.stack(frames)).float() / 255
        at = torch.tensor(fractions, dtype=torch.float32)[:, None, None, None]
        targets = stacked[:, -1:]
        return Batch(stacked[:, :-1], targets, at.expand_as(targets))

    def _sample(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
        """Slices (C + 1, H, W), the inputs and then the target, and the target's fraction of the way."""
        for _ in range(_TRIES):
            frames, fraction = self._drawn(rng)
            if (frames == 0).mean(axis=(1, 2)).max() <= _EMPTY:
                return flipped(frames, fraction, rng)
        raise BadInput("volumes", "they hold tissue", f"{_TRIES} crops drawn from them were mostly zeros", "Crop them.")

    def _drawn(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
        raw = drawn_volume(rng, self._stacks).raw
        if self._config.channels == 1:
            distances, fraction = [0, 1], 0.0
        else:
            gap = int(rng.choice(self._config.gaps))
            place = int(rng.integers(1, gap + 1))
            distances, fraction = [0, gap + 1, place], place / (gap + 1)
        size = (max(distances) + 1, *self._config.crop)
        z, y, x = (int(rng.integers(0, extent - length + 1)) for extent, length in zip(raw.shape, size, strict=True))
        window = raw[z : z + size[0], y : y + size[1], x : x + size[2]]
        return window[distances], fraction


def flipped(frames: NDArray[np.uint8], fraction: float, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """Flips, transposition, and the exchange of the slices before and after (with two frames: of input and target)."""
    if rng.random() < 0.5:
        order = [1, 0, *range(2, len(frames))]
        frames, fraction = frames[order], 1.0 - fraction
    if rng.random() < 0.5:
        frames = frames.transpose(0, 2, 1)
    turned = frames[:, :: rng.choice([1, -1]), :: rng.choice([1, -1])]
    return np.ascontiguousarray(turned), fraction


def _misfit(stack: Stack, size: tuple[int, ...]) -> BadInput:
    return BadInput(
        f"{stack.name} of {tuple(stack.raw.shape)} (z, y, x)",
        f"a volume has at least {size[0]} slices and the size of a crop, {size[1]} x {size[2]}",
        "a sample is neighbouring slices, cut from inside the volume",
        "Give a larger volume, a smaller crop, or narrower gaps.",
    )
