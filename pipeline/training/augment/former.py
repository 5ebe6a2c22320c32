"""Random changes of a training crop; grey levels and labels always move together.

Every function takes the random generator, so that a step's crops follow from its number alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pipeline.training.config import Augmentation


def reach(size: int, augmentation: Augmentation) -> int:
    """In-plane size of the window to read so that any rotation and scale of `size` voxels stays inside it."""
    return math.ceil(size * math.sqrt(2.0) * augmentation.scale[1]) + 2


def geometry(
    raw: Tensor, instances: Tensor, size: int, rng: np.random.Generator, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Rotate and scale in the plane (sometimes), cut the centre (D, size, size), flip and transpose.

    Args:
        raw: float32 (D, H, W), H = W, at least `size`.
        instances: integers of the same shape.
        size: height and width of the result.
        rng: decides everything.
        augmentation: the chances.
    """
    if rng.random() < augmentation.affine:
        grid = _grid(size, raw.shape[-1], rng, augmentation)
        raw, instances = _sampled(raw, grid, "bilinear"), _sampled(instances.float(), grid, "nearest").to(instances)
    else:
        raw, instances = _centre(raw, size), _centre(instances, size)
    return _flipped(raw, instances, rng)


def _grid(size: int, extent: int, rng: np.random.Generator, augmentation: Augmentation) -> Tensor:
    """Sampling positions (1, size, size, 2) in grid_sample's units, for one rotation and two scale factors."""
    angle = rng.uniform(0.0, 2.0 * math.pi)
    low, high = (math.log(scale) for scale in augmentation.scale)
    zoom_y, zoom_x = np.exp(rng.uniform(low, high, 2))
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(steps / float(zoom_y), steps / float(zoom_x), indexing="ij")
    sine, cosine = math.sin(angle), math.cos(angle)
    turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1)
    return (turned * (2.0 / extent))[None]


def _sampled(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    """The slices are channels here: one grid serves all of them."""
    return functional.grid_sample(values[None], grid, mode=mode, padding_mode="reflection", align_corners=False)[0]


def _centre(values: Tensor, size: int) -> Tensor:
    start = (values.shape[-1] - size) // 2
    return values[..., start : start + size, start : start + size]


def _flipped(raw: Tensor, instances: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    flips = [axis for axis in range(3) if rng.random() < 0.5]
    raw, instances = raw.flip(flips), instances.flip(flips)
    if rng.random() < 0.5:
        raw, instances = raw.transpose(1, 2), instances.transpose(1, 2)
    return raw.contiguous(), instances.contiguous()


def intensity(raw: Tensor, rng: np.random.Generator, augmentation: Augmentation) -> Tensor:
    """Contrast, brightness, gamma, one shift per slice, blur, noise, and sometimes one missing or dim slice.

    Args:
        raw: float32 (D, H, W), normalised (about 0..1).
        rng: decides everything.
        augmentation: the ranges.
    """
    raw = _blurred(raw) if rng.random() < augmentation.blur else raw
    raw = _graded(raw, rng, augmentation)
    noise = rng.uniform(0.0, augmentation.noise) * (rng.random() < 0.5)
    raw = raw + noise * torch.from_numpy(rng.standard_normal(raw.shape, dtype=np.float32))
    return _with_bad_slice(raw, rng) if rng.random() < augmentation.bad_slice else raw


def _graded(raw: Tensor, rng: np.random.Generator, augmentation: Augmentation) -> Tensor:
    gamma = 2.0 ** rng.uniform(-augmentation.gamma, augmentation.gamma)
    inside = raw.clamp(0.0, 1.0)
    raw = raw - inside + inside**gamma  # what lies beyond 0..1 keeps its distance
    contrast = 1.0 + rng.uniform(-augmentation.contrast, augmentation.contrast)
    shift = rng.uniform(-augmentation.brightness, augmentation.brightness)
    slices = rng.standard_normal(raw.shape[0], dtype=np.float32) * augmentation.slice_brightness
    return (raw - 0.5) * contrast + 0.5 + shift + torch.from_numpy(slices)[:, None, None]


def _blurred(raw: Tensor) -> Tensor:
    """3x3 binomial filter in the plane."""
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line)[None, None]
    padded = functional.pad(raw[:, None], (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel)[:, 0]


def _with_bad_slice(raw: Tensor, rng: np.random.Generator) -> Tensor:
    """One slice nearly without contrast, or black: a lost or badly exposed section."""
    z = int(rng.integers(raw.shape[0]))
    level = 0.0 if rng.random() < 0.5 else float(raw[z].mean())
    keep = 0.0 if rng.random() < 0.5 else 0.3
    changed = raw.clone()
    changed[z] = level + keep * (raw[z] - level)
    return changed
