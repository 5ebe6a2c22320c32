"""Changes of the grey levels alone; labels come back as they went in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.augment.chance import drawn, seeded
from pipeline.training.augment.settings import Augmentation


def grayscale(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Contrast, brightness, gamma; one set of values for the crop or one for each slice."""
    part = settings.grayscale
    if not drawn(generator, part.chance):
        return raw, instances
    count = raw.shape[0] if drawn(generator, part.by_slice) else 1
    contrast = _column(1.0 + generator.uniform(-part.contrast, part.contrast, count), raw)
    shift = _column(generator.uniform(-part.brightness, part.brightness, count), raw)
    gamma = _column(2.0 ** generator.uniform(-part.gamma, part.gamma, count), raw)
    graded = (raw - part.pivot) * contrast + (part.pivot + shift)
    inside = graded.clamp(0.0, 1.0)
    return (inside**gamma if part.clip else graded - inside + inside**gamma), instances


def slice_brightness(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """A normally distributed shift of each slice."""
    part = settings.slice_brightness
    if not drawn(generator, part.chance):
        return raw, instances
    return raw + _column(generator.normal(0.0, part.sigma, raw.shape[0]), raw), instances


def noise(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Normally distributed noise of a random strength."""
    part = settings.noise
    if not drawn(generator, part.chance):
        return raw, instances
    strength = float(generator.uniform(0.0, part.most))
    grains = torch.randn(raw.shape, generator=seeded(generator, raw.device), device=raw.device)
    return raw + strength * grains, instances


def blur(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """3x3 binomial filter in the plane; the border's value goes on beyond it."""
    if not drawn(generator, settings.blur.chance):
        return raw, instances
    padded = functional.pad(raw[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = padded[..., :-2] + 2.0 * padded[..., 1:-1] + padded[..., 2:]
    return (across[:, :-2] + 2.0 * across[:, 1:-1] + across[:, 2:]) / 16.0, instances


def bad_slice(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """One slice nearly or wholly without contrast, about its mean or about black."""
    if not drawn(generator, settings.bad_slice.chance):
        return raw, instances
    z = int(generator.integers(raw.shape[0]))
    level = raw[z].mean() * float(generator.integers(2))
    keep = 0.3 * float(generator.integers(2))
    changed = raw.clone()
    changed[z] = level + keep * (raw[z] - level)
    return changed, instances


def cut_blur(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Mean over squares of n x n voxels in a cuboid, which keeps its size."""
    part = settings.cut_blur
    if not drawn(generator, part.chance):
        return raw, instances
    where = _cuboid(raw.shape, part.share, generator)
    factor = int(generator.integers(part.factors[0], part.factors[1] + 1))
    inside = raw[where]
    coarse = functional.avg_pool2d(inside[:, None], factor, ceil_mode=True)[:, 0]
    fine = coarse.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    changed = raw.clone()
    changed[where] = fine[:, : inside.shape[1], : inside.shape[2]]
    return changed, instances


def cut_noise(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Uniform noise in a cuboid, grey levels there cut to 0..1."""
    part = settings.cut_noise
    if not drawn(generator, part.chance):
        return raw, instances
    where = _cuboid(raw.shape, part.share, generator)
    inside = raw[where]
    grains = torch.rand(inside.shape, generator=seeded(generator, raw.device), device=raw.device) * 2.0 - 1.0
    changed = raw.clone()
    changed[where] = (inside + part.amplitude * grains).clamp(0.0, 1.0)
    return changed, instances


def _cuboid(
    shape: tuple[int, ...] | torch.Size, share: float, generator: np.random.Generator
) -> tuple[slice, slice, slice]:
    """A random box of `share` of each side, at least one voxel."""
    sizes = [max(1, int(share * extent)) for extent in shape]
    starts = [int(generator.integers(extent - size + 1)) for extent, size in zip(shape, sizes, strict=True)]
    z, y, x = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return z, y, x


def _column(values: np.ndarray[tuple[int], np.dtype[np.float64]], like: Tensor) -> Tensor:
    """(D,) or (1,) as float32 (D, 1, 1) on the device of `like`."""
    return torch.from_numpy(values.astype(np.float32)).to(like.device)[:, None, None]
