"""All augmentations of a crop, in the order of the reference, at the cost of as few voxels as they need."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import BadInput
from pipeline.geometry import Triple
from pipeline.training.augment import grey, sections, warp
from pipeline.training.augment.chance import drawn
from pipeline.training.augment.labels import smoothed
from pipeline.training.augment.settings import Augmentation

Change = Callable[[Tensor, Tensor, np.random.Generator, Augmentation], tuple[Tensor, Tensor]]


def flip(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Mirror each axis and swap y and x, each with chance 1/2; y and x are swapped only where they are equally long."""
    if not drawn(generator, settings.flip.chance):
        return raw, instances
    axes = [axis for axis in range(3) if drawn(generator, 0.5)]
    raw, instances = raw.flip(axes), instances.flip(axes)
    if drawn(generator, 0.5) and raw.shape[1] == raw.shape[2]:
        raw, instances = raw.transpose(1, 2), instances.transpose(1, 2)
    return raw.contiguous(), instances.contiguous()


AUGMENTATIONS: dict[str, Change] = {
    "rotate": warp.rotate,
    "rescale": warp.rescale,
    "flip": flip,
    "elastic": warp.elastic,
    "grayscale": grey.grayscale,
    "missing_parts": sections.missing_parts,
    "missing_section": sections.missing_section,
    "misalignment": sections.misalignment,
    "motion_blur": sections.motion_blur,
    "cut_blur": grey.cut_blur,
    "cut_noise": grey.cut_noise,
    "scale_jitter": warp.scale_jitter,
    "slice_brightness": grey.slice_brightness,
    "noise": grey.noise,
    "blur": grey.blur,
    "bad_slice": grey.bad_slice,
}
"""Each by the name of its settings: (raw, instances, generator, settings) -> (raw, instances) of the same shape.

raw is float32 (D, H, W), instances int32 or int64 (D, H, W). The chance is part of each; what comes in stays unchanged.
"""

_BEFORE = ("cut_noise", "cut_blur", "motion_blur", "misalignment", "missing_section", "missing_parts")
_AFTER = ("grayscale", "blur", "slice_brightness", "noise", "bad_slice")


def window(crop: Triple, settings: Augmentation) -> Triple:
    """Size (z, y, x) of the sample to read so that a crop of this size holds only what was read.

    In the plane by 1.42 for turning (for other than square crops: by the diagonal), by the smallest factors of rescale
    and scale jitter, and by the reach of elastic and misalignment; in z by the deleted slices, an even number.
    """
    depth, height, width = crop
    if settings.rotate.chance > 0:
        height = width = math.ceil(1.42 * math.hypot(height, width) / math.sqrt(2.0) - 1e-9)
    for part in (settings.rescale, settings.scale_jitter):
        if part.chance > 0:
            height, width = (math.ceil(max(1.0, 1.0 / part.factors[0]) * size - 1e-9) for size in (height, width))
    margin = 2 * warp.margin_of(settings.elastic) if settings.elastic.chance > 0 else 0
    margin += _slip(settings)
    lost = settings.missing_section.sections if settings.missing_section.chance > 0 else 0
    return depth + 2 * math.ceil(lost / 2), height + margin, width + margin


def augmented(
    raw: Tensor, instances: Tensor, crop: Triple, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """A random version of a sample, of `crop` voxels.

    The order is that of the reference: cut-noise, cut-blur, motion blur, misalignment, missing section, missing parts,
    grayscale, elastic, rescale, rotate, crop, flip. Elastic, rescale, scale jitter and rotate are one resampling, drawn
    first, so that the faults before it fall only where it looks; grayscale, the same for all voxels of a slice, and our
    own changes of grey levels follow it.

    Args:
        raw: float32 (D, H, W), normalised to about 0..1, on any device.
        instances: int32 or int64 (D, H, W) on the same device, 0 = background; ids of any size are kept exactly. (With
            `smooth_labels` the time grows with the number of ids.)
        crop: (z, y, x) of the result.
        generator: decides everything; the state it is left in depends on what it decided.
        settings: chances and ranges.

    Returns:
        float32 and integers of exactly `crop` voxels, contiguous; what came in is unchanged but may be shared.

    Raises:
        BadInput: shapes differ, the sample is smaller than the crop, or the labels are no signed integers.
    """
    _usable(raw, instances, crop)
    size = (crop[1], crop[2])
    bent = warp.draw(generator, settings)
    raw, instances = (_tight(values, bent.reach(size), _slip(settings)) for values in (raw, instances))
    for name in _BEFORE:
        raw, instances = AUGMENTATIONS[name](raw, instances, generator, settings)
    first = (raw.shape[0] - crop[0]) // 2
    inner = slice(first, first + crop[0])
    raw, instances = warp.warped(raw[inner], instances[inner], bent, size)
    for name in (*_AFTER, "flip"):
        raw, instances = AUGMENTATIONS[name](raw, instances, generator, settings)
    instances = smoothed(instances) if settings.smooth_labels else instances
    return raw.contiguous(), instances.contiguous()


def _slip(settings: Augmentation) -> int:
    """Voxels that misalignment needs in all, half of them on either side."""
    part = settings.misalignment
    return 2 * math.ceil(part.displacement / 2) if part.chance > 0 else 0


def _tight(values: Tensor, reach: tuple[float, float], slip: int) -> Tensor:
    """What lies further from the centre than `reach` (y, x), half the `slip` and the interpolation is cut off."""
    sizes = [
        size - 2 * max(0, math.floor((size - 1) / 2 - (far + slip // 2 + 1)))
        for size, far in zip(values.shape[1:], reach, strict=True)
    ]
    return warp.centre(values, (sizes[0], sizes[1]))


def _usable(raw: Tensor, instances: Tensor, crop: Triple) -> None:
    if raw.shape != instances.shape:
        raise BadInput(
            f"raw {tuple(raw.shape)} and labels {tuple(instances.shape)}",
            "both have one shape",
            "they move together",
            "Cut both from the same box.",
        )
    if raw.ndim != 3 or any(size < inner for size, inner in zip(raw.shape, crop, strict=False)):
        raise BadInput(
            f"a sample of {tuple(raw.shape)} for a crop of {tuple(crop)}",
            "it has three axes and is at least as large as the crop",
            "the crop is cut from it",
            "augment.window says how large it should be.",
        )
    if instances.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise BadInput(
            f"labels of type {instances.dtype}",
            "they are signed integers",
            "torch computes little with other integers, and float32 holds ids to 16,777,216 only",
            "Renumber the crop's ids and give int32.",
        )
