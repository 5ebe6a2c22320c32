"""How well a restorer makes slices that it never saw, beside what can be done without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.denoise.ops.restore import RestoreOp, Restorer
from pipeline.errors import BadInput, raise_all
from pipeline.geometry import Box, vec3
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.start import multiple_of
from pipeline.training.restoration.volumes import Stack

Slices = NDArray[np.uint8]
PEAK_DB = 100.0
"""PSNR of two equal images."""
_BLANK = 128


@dataclass(frozen=True)
class Case:
    """A stack (z, y, x) whose slices between the first and the last are hidden, to be made from those two.

    Of noise2noise a stack of two: the first is to become like the second.
    """

    stack: Slices
    channels: int

    @property
    def truth(self) -> Slices:
        """What is to be made."""
        return self.stack[1:-1] if self.channels == 2 else self.stack[1:]

    def simple(self) -> tuple[Slices, Slices]:
        """What needs no network: the mean weighted by nearness, and the nearest slice (of two the one before)."""
        if self.channels == 1:
            return self.stack[:1], self.stack[:1]
        at = np.arange(1, len(self.stack) - 1, dtype=np.float32)[:, None, None] / (len(self.stack) - 1)
        before, after = self.stack[:1].astype(np.float32), self.stack[-1:].astype(np.float32)
        mean = np.rint((1 - at) * before + at * after).astype(np.uint8)
        return mean, np.where(at <= 0.5, self.stack[:1], self.stack[-1:])

    def restored(self, restorer: Restorer, patch: tuple[int, int], overlap: tuple[int, int], multiple: int) -> Slices:
        """The hidden slices, made as a run makes them."""
        given = self.stack[:1] if self.channels == 1 else self.stack.copy()
        hidden = slice(0, 1) if self.channels == 1 else slice(1, -1)
        damaged = np.zeros(given.shape, bool)
        damaged[hidden] = True
        if self.channels == 2:
            given[hidden] = _BLANK
        depth, height, width = given.shape
        op = RestoreOp(vec3(given.shape), patch, overlap, multiple, self.channels, max_gap=depth)
        read, first = Box.of_shape(op.extent), self.channels - 1
        core = Box((first, 0, 0), (depth - first, height, width))
        made = op(given, damaged, read, core, restorer)
        return np.where(made.replaced > 0, made.grey, self.simple()[0])  # padding is not restored


def cases(raw: Slices, channels: int, gap: int = 1) -> Iterator[Case]:
    """Every stack of a volume (z, y, x) with a gap's slices between two others; of one channel, every pair."""
    depth = 2 if channels == 1 else gap + 2
    yield from (Case(raw[z : z + depth], channels) for z in range(len(raw) - depth + 1))


def psnr(images: Slices, truth: Slices) -> list[float]:
    """Peak signal-to-noise ratio of each slice in dB; the peak is 255."""
    errors = np.mean((images.astype(np.float64) - truth) ** 2, axis=(1, 2))
    return [PEAK_DB if error == 0 else 10 * float(np.log10(255**2 / error)) for error in errors]


def scores(network: nn.Module, stack: Stack, config: RestorationConfig, device: torch.device) -> dict[str, float]:
    """Mean PSNR in dB over the slices of a volume: of the network, its gain over mean and nearest, of the mean."""
    restorer, multiple = Trained(network, device), multiple_of(network)
    found = []
    for case in cases(stack.raw, config.channels):
        made = case.restored(restorer, config.patch, config.overlap, multiple)
        found += list(zip(*(psnr(images, case.truth) for images in (made, *case.simple())), strict=True))
    own, mean, nearest = (float(value) for value in np.mean(found, axis=0))
    values = {"psnr": own, "gain": own - mean, "gain_nearest": own - nearest, "mean": mean}
    return {name: round(value, 4) for name, value in values.items()}


def mean_score(found: Sequence[dict[str, float]]) -> float:
    """What the best weights are chosen by: the mean gain over the volumes."""
    return float(np.mean([one["gain"] for one in found]))


def require_scorable(stacks: Sequence[Stack], config: RestorationConfig) -> None:
    """Refuse validation volumes without a slice to compare.

    Raises:
        BadInput: there are such volumes.
    """
    least = config.channels + 1
    raise_all([_too_thin(stack, least) for stack in stacks if len(stack.raw) < least])


def _too_thin(stack: Stack, slices: int) -> BadInput:
    return BadInput(
        f"validation volume {stack.name} of {len(stack.raw)} slices",
        f"it has at least {slices}",
        "a slice is compared with what was made of others",
        "Give more slices.",
    )


class Trained:
    """A network in training as `RestoreOp` takes it."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device

    def restore(self, inputs: NDArray[np.float32], fraction: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """(N, C, H, W) 0..1 and (N, H, W), or None -> (N, H, W) 0..1."""
        given = [inputs] if fraction is None else [inputs, fraction[:, None]]
        with torch.inference_mode():
            made = self._network(*(torch.from_numpy(one).to(self._device) for one in given))
            result: NDArray[np.float32] = made[:, 0].clamp(0.0, 1.0).float().cpu().numpy()
        return result
