"""Gaps: damaged slices of a pixel column, and the sound slices on both sides that they are restored from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Bool, Float32, UInt8


class Gaps(NamedTuple):
    """What one slice is restored from, pixel by pixel; all (H, W).

    Attributes:
        before, after: grey levels of the nearest sound slice below and above; where one side has none the other's
            twice, where neither has one the slice's own.
        fraction: where the slice stands between them, 0 at before, 1 at after; 0.5 where one side serves as both.
        known: whether at least one side has a sound slice that is not padding: before and after mean something.
        restorable: damaged, known, and in a gap of at most ``max_gap`` slices.
        left: damaged and not restorable, unless all that is sound beside it is padding outside the tissue.
    """

    before: UInt8
    after: UInt8
    fraction: Float32
    known: Bool
    restorable: Bool
    left: Bool


class _Side(NamedTuple):
    """The nearest slice on one side that is sound or lies outside the volume; ``distance`` is 0 where none is near."""

    grey: UInt8
    distance: npt.NDArray[np.int32]
    sound: Bool
    usable: Bool


def gaps(grey: UInt8, damaged: Bool, empty: Bool, place: int, max_gap: int) -> Gaps:
    """The gaps of the slice at index ``place`` of a stack.

    At the first and last slices of the volume the one side that is there serves as both.

    Args:
        grey, damaged, empty: (D, H, W); ``empty`` is padding. The stack reaches ``max_gap`` slices beyond ``place`` on
            both sides, or as far as the volume does.
        place: index of the slice in the stack.
        max_gap: longest run of damaged slices that is restored, and how far a sound slice is looked for.
    """
    below, above = (_side(grey, damaged, empty, place, step, max_gap) for step in (-1, 1))
    before = np.where(below.usable, below.grey, np.where(above.usable, above.grey, grey[place]))
    after = np.where(above.usable, above.grey, before)
    span = below.distance + above.distance
    fraction = np.full(before.shape, 0.5, np.float32)
    np.divide(below.distance, span, out=fraction, where=below.usable & above.usable, casting="same_kind")
    known = below.usable | above.usable
    short = (below.distance > 0) & (above.distance > 0) & (span <= max_gap + 1)
    restorable = damaged[place] & known & short
    left = damaged[place] & ~restorable & ~(short & (below.sound | above.sound))
    return Gaps(before, after, fraction, known, restorable, left)


def itself(grey: UInt8, damaged: Bool, empty: Bool) -> Gaps:
    """A slice (H, W) that is restored from itself alone; padding is not."""
    return Gaps(grey, grey, np.full(grey.shape, 0.5, np.float32), ~empty, damaged & ~empty, np.zeros(grey.shape, bool))


def _side(grey: UInt8, damaged: Bool, empty: Bool, place: int, step: int, reach: int) -> _Side:
    shape = grey.shape[1:]
    side = _Side(grey[place].copy(), np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool))
    searched = np.ones(shape, bool)
    for distance in range(1, reach + 1):
        at = place + step * distance
        if not 0 <= at < len(grey):
            side.distance[searched] = distance
            break
        found = searched & ~damaged[at]
        side.distance[found] = distance
        side.sound[found] = True
        np.copyto(side.grey, grey[at], where=found)
        np.copyto(side.usable, ~empty[at], where=found)
        searched &= damaged[at]
        if not searched.any():
            break
    return side
