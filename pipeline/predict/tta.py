"""Test-time augmentation: the network sees each patch mirrored and transposed, its answers turned back are averaged.

The choices 4 and 16 are those of the MitoEM2021 challenge code: {z-flip} x {y-x transpose}, and these times {y-flip} x
{x-flip}. 8 is ours: {y-flip} x {x-flip} x {transpose}, all mirrors and quarter turns of a section. Unlike 4 x {y-flip}
it is a group, so that turning the volume by 90 degrees turns the result and changes nothing else; and it leaves z
alone, the one direction in which a stack has an order (milling, charging and drift go one way through it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from pipeline.arrays import Float32

Tta = Literal[0, 4, 8, 16]
CHOICES: tuple[Tta, ...] = (0, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to look at a patch: mirrored along some of the axes z, y, x, then y and x swapped."""

    flips: tuple[bool, bool, bool] = (False, False, False)
    transposed: bool = False

    def applied(self, patches: Float32) -> Float32:
        """(..., D, H, W) -> its voxels in another order, (..., D, H, W) or, transposed, (..., D, W, H); contiguous."""
        return np.ascontiguousarray(self._swapped(self._mirrored(patches)))

    def undone(self, result: Float32) -> Float32:
        """What the network said about ``applied(patches)``, every voxel back in its place; a view."""
        return self._mirrored(self._swapped(result))

    def _mirrored(self, array: Float32) -> Float32:
        z, y, x = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return array[..., z, y, x]

    def _swapped(self, array: Float32) -> Float32:
        return np.swapaxes(array, -1, -2) if self.transposed else array


def variants(tta: Tta) -> tuple[Variant, ...]:
    """The variants of a choice, the patch as it is first; ``max(1, tta)`` of them."""
    z = (False, True) if tta in (4, 16) else (False,)
    plane = (False, True) if tta in (8, 16) else (False,)
    swap = (False, True) if tta else (False,)
    return tuple(Variant((dz, dy, dx), swapped) for dz, dy, dx, swapped in product(z, plane, plane, swap))


def mean_probability(
    inputs: Sequence[tuple[Callable[[Float32], Float32], Float32]], views: Sequence[Variant]
) -> Float32:
    """The mean over all networks and variants, in float32 and in one order: networks outside, variants inside.

    Sums are made of halves: any number of equal answers that is a power of two has exactly them as its mean.

    Args:
        inputs: for each network, the function (N, 1, D, H, W) -> (N, 2, D, H, W), and the patches normalised for it.
        views: the variants.

    Returns:
        (N, 2, D, H, W) float32.
    """
    each = (
        _summed((view.undone(predict(view.applied(patches))) for view in views), len(views))
        for predict, patches in inputs
    )
    total, count = _summed(each, len(inputs)), len(inputs) * len(views)
    return total / np.float32(count) if count > 1 else total


def _summed(answers: Iterator[Float32], count: int) -> Float32:
    if count == 1:
        return next(answers)
    return _summed(answers, count // 2) + _summed(answers, count - count // 2)
