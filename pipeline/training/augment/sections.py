"""Faults of single sections: lost, slipped, folded, drifting.

In everything here a crop that has too few slices for a fault stays as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.augment.chance import drawn
from pipeline.training.augment.settings import Augmentation
from pipeline.training.augment.warp import Warp, warped


def missing_section(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Delete slices of both; (D, H, W) stays as the first and last slice are repeated in their stead.

    `window` adds as many slices as are repeated, so the centre that becomes the crop holds none of them.
    """
    part = settings.missing_section
    depth, count = raw.shape[0], part.sections
    if not drawn(generator, part.chance) or depth - 2 < count:
        return raw, instances
    lost = generator.choice(np.arange(1, depth - 1), count, replace=False)
    kept = np.delete(np.arange(depth), lost)
    before = (count + 1) // 2
    order = np.concatenate([np.repeat(kept[:1], before), kept, np.repeat(kept[-1:], count - before)])
    index = torch.from_numpy(order).to(raw.device)
    return raw.index_select(0, index), instances.index_select(0, index)


def misalignment(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Move one slice, or it and all that follow, of both; the size stays.

    A shift is split over both sides, so that half of `displacement` is needed beyond the crop. A turn about the centre
    is so small that no voxel of the crop needs more than that.
    """
    part = settings.misalignment
    if not drawn(generator, part.chance) or raw.shape[0] < 2:
        return raw, instances
    first = int(generator.integers(1, max(2, raw.shape[0] - 1)))
    last = first + 1 if drawn(generator, part.slip) else raw.shape[0]
    if drawn(generator, part.rotation):
        return _turned(raw, instances, slice(first, last), part.displacement / 2, generator)
    return _shifted(raw, instances, slice(first, last), part.displacement, generator)


def _turned(
    raw: Tensor, instances: Tensor, moved: slice, margin: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    size = (raw.shape[1], raw.shape[2])
    most = margin / max(1.0, (max(size) - 2 * margin) / 2)  # cos + sin <= 1 + angle: corners stay within the margin
    angle = generator.uniform(-most, most)
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    grey, labels = warped(raw[moved], instances[moved], Warp((cosine, -sine, sine, cosine)), size)
    return _replaced(raw, grey, moved), _replaced(instances, labels, moved)


def _shifted(
    raw: Tensor, instances: Tensor, moved: slice, most: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    still, slipped = generator.integers(-(most // 2), (most + 1) // 2 + 1, (2, 2)).tolist()
    return tuple(  # type: ignore[return-value]
        _replaced(_rolled(values, still), _rolled(values[moved], slipped), moved) for values in (raw, instances)
    )


def _rolled(values: Tensor, by: list[int]) -> Tensor:
    """The last two axes moved by whole voxels; the border's value goes on beyond it."""
    for axis, step in zip((1, 2), by, strict=True):
        index = torch.arange(values.shape[axis], device=values.device) - step
        values = values.index_select(axis, index.clamp_(0, values.shape[axis] - 1))
    return values


def _replaced(values: Tensor, part: Tensor, where: slice) -> Tensor:
    changed = values.clone()
    changed[where] = part
    return changed


def missing_parts(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Fill a band across some slices with their mean; labels stay."""
    part = settings.missing_parts
    if not drawn(generator, part.chance):
        return raw, instances
    changed = raw.clone()
    z = 0
    while z < raw.shape[0]:
        if drawn(generator, part.slice_chance):
            band = _band((raw.shape[1], raw.shape[2]), part.half_width, generator, raw.device)
            changed[z] = torch.where(band, raw[z].mean(), raw[z])
            z += 2
        z += 1
    return changed, instances


def _band(size: tuple[int, int], half_width: int, generator: np.random.Generator, device: torch.device) -> Tensor:
    """True (height, width) near a random line from one side to the opposite one.

    Near by the sum of the distances in y and x, as repeated dilation by a cross has it. The line is never steeper than
    the slice's diagonal, so for square slices that is the distance along the axis it crosses.
    """
    across = int(generator.integers(2))  # the axis that the line crosses
    start, end = generator.uniform(0.0, size[across] - 1.0, 2)
    along = torch.linspace(0.0, 1.0, size[1 - across], device=device)
    line = float(start) + float(end - start) * along
    distance = (torch.arange(size[across], device=device)[:, None] - line[None]).abs()
    band = distance <= half_width
    return band if across == 0 else band.T


def motion_blur(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """A box filter along y or x in some slices; labels stay."""
    part = settings.motion_blur
    if not drawn(generator, part.chance):
        return raw, instances
    changed = raw.clone()
    for z in generator.choice(raw.shape[0], min(part.sections, raw.shape[0]), replace=False):
        before, after = part.taps // 2, part.taps - 1 - part.taps // 2
        vertical = bool(generator.integers(2))
        ends, kernel = ((0, 0, before, after), (part.taps, 1)) if vertical else ((before, after, 0, 0), (1, part.taps))
        padded = functional.pad(raw[int(z)][None, None], ends, mode="replicate")
        changed[int(z)] = functional.avg_pool2d(padded, kernel, stride=1)[0, 0]
    return changed, instances
