"""Chains of capsules with a radius that changes along them: mitochondria, and what is mistaken for them.

Lengths are nanometres, axes z, y, x. The depth of a point in a chain is the radius minus the distance to the centre
line, at the nearest segment: positive inside, negative outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.noise import Floats

Doubles = NDArray[np.float64]
SliceSpans = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Chains:
    """``n`` chains of ``s`` segments.

    Attributes:
        start, end: (n, s, 3) float64, nm; a segment of no length is not drawn.
        start_radius, end_radius: (n, s) float64, nm.
    """

    start: Doubles
    end: Doubles
    start_radius: Doubles
    end_radius: Doubles

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Chains:
        return Chains(self.start[which], self.end[which], self.start_radius[which], self.end_radius[which])

    def bounds(self) -> tuple[Doubles, Doubles]:
        """Lowest and highest corner (n, 3) of every chain."""
        radius = np.maximum(self.start_radius, self.end_radius)[..., None]
        low = np.minimum(self.start, self.end) - radius
        high = np.maximum(self.start, self.end) + radius
        return low.min(axis=1), high.max(axis=1)

    def samples(self) -> tuple[Doubles, Doubles]:
        """Points on the centre lines (n, 2 s, 3) and the radii there (n, 2 s)."""
        middle = (self.start + self.end) * 0.5
        middle_radius = (self.start_radius + self.end_radius) * 0.5
        return (
            np.concatenate([self.end, middle], axis=1),
            np.concatenate([self.end_radius, middle_radius], axis=1),
        )


def voxels_between(axes: Sequence[Doubles], low: Doubles, high: Doubles) -> SliceSpans:
    """The indices of sorted coordinate ``axes`` that lie in ``low .. high``."""
    z, y, x = (
        slice(int(np.searchsorted(axis, a, "left")), int(np.searchsorted(axis, b, "right")))
        for axis, a, b in zip(axes, low, high, strict=True)
    )
    return z, y, x


def depth(chains: Chains, number: int, axes: Sequence[Doubles], floor: float) -> tuple[SliceSpans, Floats] | None:
    """The depth of one chain where it may exceed ``floor`` (nm, negative), and ``floor`` around it.

    Args:
        axes: three sorted 1-D arrays of coordinates, nm.

    Returns:
        The part of the grid and the depths there; None where the chain stays outside.
    """
    lows, highs = chains.bounds()
    whole = voxels_between(axes, lows[number] + floor, highs[number] - floor)
    if any(part.start >= part.stop for part in whole):
        return None
    axes = [axis[part] for axis, part in zip(axes, whole, strict=True)]
    out = np.full([len(axis) for axis in axes], floor, np.float32)
    for segment in range(chains.start.shape[1]):
        a, b = chains.start[number, segment], chains.end[number, segment]
        if (a == b).all():
            continue
        radii = float(chains.start_radius[number, segment]), float(chains.end_radius[number, segment])
        reach = max(radii) - floor
        part = voxels_between(axes, np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        if all(p.start < p.stop for p in part):
            local = [axis[p] for axis, p in zip(axes, part, strict=True)]
            np.maximum(out[part], _capsule_depth(local, a, b, radii), out=out[part])
    return whole, out


def _capsule_depth(axes: Sequence[Doubles], a: Doubles, b: Doubles, radii: tuple[float, float]) -> Floats:
    """|d|^2 - 2 t d.u + t^2 u.u with t the clamped foot; few passes, since most terms are separable."""
    u = b - a
    uu = float(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
    z, y, x = (axis - start for axis, start in zip(axes, a, strict=True))
    square_yx = ((y * y)[:, None] + (x * x)[None, :]).astype(np.float32)
    foot_yx = ((y * (u[1] / uu))[:, None] + (x * (u[2] / uu))[None, :]).astype(np.float32)
    along = (z * (u[0] / uu)).astype(np.float32)[:, None, None] + foot_yx
    t = np.clip(along, np.float32(0), np.float32(1))
    along *= np.float32(2)
    along -= t
    along *= t
    along *= np.float32(uu)
    square = (z * z).astype(np.float32)[:, None, None] + square_yx
    square -= along
    np.maximum(square, np.float32(0), out=square)
    np.sqrt(square, out=square)
    t *= np.float32(radii[1] - radii[0])
    t += np.float32(radii[0])
    t -= square
    return np.asarray(t, np.float32)
