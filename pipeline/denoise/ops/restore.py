"""Damaged voxels replaced by what a network makes of the slices beside them; the same for every block shape.

The network runs on patches of a lattice fixed to the volume, slice by slice, and only on those that hold a voxel to be
replaced. All patches over such a voxel are blended in lattice order in float32, whatever block asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy import ndimage

from pipeline.arrays import Bool, Float32, UInt8
from pipeline.denoise.ops.gaps import Gaps, gaps, itself
from pipeline.geometry import Box, Vec3, vec3
from pipeline.image.lattice import Lattice
from pipeline.image.padding import EMPTY_WINDOW, empty_voxels
from pipeline.image.quantise import rounded

_Int64 = np.ndarray[tuple[int], np.dtype[np.int64]]
_RIM = EMPTY_WINDOW - 1


class Restorer(Protocol):
    """What the op needs of a loaded restorer."""

    def restore(self, inputs: Float32, fraction: Float32 | None) -> Float32:
        """(N, C, H, W) grey levels 0..1 and (N, H, W) places in the gap -> (N, H, W) grey levels 0..1."""
        ...


class Restored(NamedTuple):
    """A restored box: ``grey`` uint8, ``replaced`` uint8 0 or 255, ``left`` int64, damaged voxels left, per slice."""

    grey: UInt8
    replaced: UInt8
    left: _Int64


@dataclass(frozen=True, slots=True)
class RestoreOp:
    """Geometry of the restoration of one volume.

    Args:
        extent: the volume, voxels z y x.
        patch, overlap: y x pixels, of the network; smaller where the volume is smaller.
        multiple: what a patch's sides are multiples of.
        channels: 2 restores from the sound slices below and above, 1 each slice from itself.
        max_gap: longest run of damaged slices that is restored.
        feather: width of the rim over which the replaced blends into the given, in the unit of ``pixel``.
        pixel: y x size of a pixel.
        batch: patches a network call; the last call is filled up, so that every call has one shape.
    """

    extent: Vec3
    patch: tuple[int, int]
    overlap: tuple[int, int]
    multiple: int
    channels: int
    max_gap: int = 3
    feather: float = 0.0
    pixel: tuple[float, float] = (1.0, 1.0)
    batch: int = 1

    version = 1

    @property
    def lattice(self) -> Lattice:
        """The patches of any slice. A volume narrower than ``multiple`` is continued by its last pixels."""
        sides = [max(n, self.multiple) for n in self.extent[1:]]
        patch = [min(p, n) // self.multiple * self.multiple for p, n in zip(self.patch, sides, strict=True)]
        overlap = [min(o, p // 2) for o, p in zip(self.overlap, patch, strict=True)]
        return Lattice(vec3((1, *sides)), vec3((1, *patch)), vec3((0, *overlap)))

    @property
    def reach(self) -> Vec3:
        """How far beyond a voxel its replacement may blend into others: in plane alone."""
        return vec3((0, *(int(self.feather / size) for size in self.pixel)))

    def near(self, core: Box) -> Box:
        """The voxels whose damage may replace some in the core."""
        return core.grown(self.reach).clipped(Box.of_shape(self.extent))

    def part(self, damaged: Bool, core: Box) -> Box:
        """The box in a core outside which nothing is replaced; empty where nothing is at all.

        Args:
            damaged: of ``near(core)``.
            core: the core.
        """
        lines = [np.flatnonzero(damaged.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if not lines[0].size:
            return Box(core.start, core.start)
        hull = Box(vec3(line[0] for line in lines), vec3(line[-1] + 1 for line in lines))
        return hull.shifted(self.near(core).start).grown(self.reach).clipped(core)

    def read_box(self, core: Box) -> Box:
        """The voxels that decide those of ``core``."""
        hull = [self.near(core), *self.lattice.touching(_in_plane(core), "bump")]
        y, x = ((min(box.start[a] for box in hull), max(box.stop[a] for box in hull)) for a in (1, 2))
        whole = Box((core.start[0], y[0], x[0]), (core.stop[0], y[1], x[1])).grown(_RIM)
        return whole.grown((self._halo, 0, 0)).clipped(Box.of_shape(self.extent))

    def __call__(
        self, grey: UInt8, damaged: Bool, read: Box, core: Box, restorer: Restorer, wanted: Bool | None = None
    ) -> Restored:
        """The grey levels of ``core`` with its damage replaced.

        Voxels replaced are 1..255; padding that is not damaged stays 0.

        Args:
            grey, damaged: of ``read`` (= ``read_box(core)``).
            read, core: boxes in the volume's voxels.
            restorer: the loaded network.
            wanted: of ``read``, the part of what is damaged that is to be replaced; all of it if None. Nothing is
                restored from the rest.
        """
        wanted = damaged if wanted is None else wanted
        inside = core.slices(read.start)
        result = Restored(grey[inside].copy(), np.zeros(core.shape, np.uint8), np.zeros(core.shape[0], np.int64))
        near = wanted[(inside[0], *self.near(core).slices(read.start)[1:])].any(axis=(1, 2))
        if not near.any():
            return result
        first = core.start[0] - read.start[0]
        empty = self._empty(grey, np.flatnonzero(near) + first)
        for z in np.flatnonzero(near):
            place = int(z) + first
            found = self._gaps(grey, damaged, empty, place)
            found = found._replace(restorable=found.restorable & wanted[place], left=found.left & wanted[place])
            result.left[z] = np.count_nonzero(found.left[inside[1:]])
            weight, window = self._weight(found, damaged[place], empty[place], read, core)
            if weight.any():
                made = self._network(found, weight > 0, window, read, restorer)
                at = (int(z), *window.slices(core.start)[1:])
                result.grey[at] = _blended(result.grey[at], made, weight)
                result.replaced[at] = np.where(weight > 0, np.uint8(255), np.uint8(0))
        return result

    @property
    def _halo(self) -> int:
        return self.max_gap if self.channels == 2 else 0

    def _empty(self, grey: UInt8, places: _Int64) -> Bool:
        """The padding in the slices that some places of a stack are restored from."""
        empty = np.zeros(grey.shape, bool)
        for place in {int(p) + step for p in places for step in range(-self._halo, self._halo + 1)}:
            if 0 <= place < len(grey):
                empty[place] = empty_voxels(grey[place : place + 1])[0]
        return empty

    def _gaps(self, grey: UInt8, damaged: Bool, empty: Bool, place: int) -> Gaps:
        if self.channels == 2:
            return gaps(grey, damaged, empty, place, self.max_gap)
        return itself(grey[place], damaged[place], empty[place])

    def _weight(self, found: Gaps, damaged: Bool, empty: Bool, read: Box, core: Box) -> tuple[Float32, Box]:
        """How much of each pixel is replaced, 0..1, in the window of the core in which any is."""
        near = _in_plane(self.near(core))
        restorable = found.restorable[near.slices(_in_plane(read).start)[1:]]
        hull = _bounds(restorable, near.start).grown(self.reach).clipped(near)
        window = hull.clipped(_in_plane(core))
        distance = self._distance(restorable[hull.slices(near.start)[1:]])[window.slices(hull.start)[1:]]
        at = window.slices(_in_plane(read).start)[1:]
        kept = ~found.known[at] | np.where(damaged[at], ~found.restorable[at], empty[at])
        weight = np.where(kept, np.float32(0), np.float32(1) - distance).clip(0, 1)
        return weight, window

    def _distance(self, restorable: Bool) -> Float32:
        """From each pixel to the nearest restorable one, in feathers."""
        if restorable.all() or not restorable.any() or not self.feather:
            return (~restorable).astype(np.float32)
        # In pixels of x: with square ones all squares are whole, and equal distances equal in every window.
        pixels = ndimage.distance_transform_edt(~restorable, sampling=(self.pixel[0] / self.pixel[1], 1.0))
        return np.asarray(pixels * (self.pixel[1] / self.feather), np.float32)

    def _network(self, found: Gaps, wanted: Bool, window: Box, read: Box, restorer: Restorer) -> Float32:
        """The network's grey levels 0..255 in a window, right where ``wanted``."""
        lattice, origin = self.lattice, _in_plane(read).start
        short = [(0, n - e) for n, e in zip(lattice.extent[1:], self.extent[1:], strict=True)]
        before, after, fraction = (np.pad(plane, short, mode="edge") for plane in found[:3])
        total, weight = np.zeros(window.shape[1:], np.float32), np.zeros(window.shape[1:], np.float32)
        for group in self._groups(lattice, wanted, window):
            at = [patch.slices(origin)[1:] for patch in group]
            inputs = np.zeros((self.batch, self.channels, *lattice.patch[1:]), np.float32)
            fractions = np.full((self.batch, *lattice.patch[1:]), 0.5, np.float32)
            for n, place in enumerate(at):
                inputs[n] = np.stack([before[place], after[place]][: self.channels])
                fractions[n] = fraction[place]
            made = restorer.restore(inputs / np.float32(255), fractions if self.channels == 2 else None)
            for patch, values in zip(group, made, strict=False):
                inside = patch.clipped(window)
                part, to = inside.slices(patch.start)[1:], inside.slices(window.start)[1:]
                share = lattice.weights(patch, "bump")[0][part]
                weight[to] += share
                total[to] += share * values[part]
        return np.divide(total, weight, out=total, where=weight > 0) * np.float32(255)

    def _groups(self, lattice: Lattice, wanted: Bool, window: Box) -> Iterator[list[Box]]:
        """The patches that hold a wanted pixel, in lattice order, a call's worth at a time."""
        touching = lattice.touching(window, "bump")
        patches = [p for p in touching if wanted[p.clipped(window).slices(window.start)[1:]].any()]
        for first in range(0, len(patches), self.batch):
            yield patches[first : first + self.batch]


def _blended(grey: UInt8, made: Float32, weight: Float32) -> UInt8:
    mixed = rounded(weight * made + (np.float32(1) - weight) * grey)
    return np.where(weight > 0, np.maximum(mixed, 1), grey)


def _in_plane(box: Box) -> Box:
    return Box((0, *box.start[1:]), (1, *box.stop[1:]))


def _bounds(mask: Bool, origin: Vec3) -> Box:
    """The hull of the true pixels of a plane whose first pixel stands at ``origin``; empty for none."""
    spans = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in range(2)]
    y, x = ((int(s[0]), int(s[-1]) + 1) if s.size else (0, 0) for s in spans)
    return Box((0, y[0], x[0]), (1, y[1], x[1])).shifted(origin)
