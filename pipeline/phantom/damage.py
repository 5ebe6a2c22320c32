"""Damage planted in grey levels, with its truth: what staining, cutting and imaging do to sections.

Precipitates, folds, missing, blurred and badly exposed sections, of nanometre sizes. Where damage lies and what it does
are functions of seed and place, as in ``pipeline.phantom.noise``: a box has the same bits whatever box it is asked in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.phantom.noise import Floats, Words, hashed, uniform, value_noise

KINDS = ("precipitate", "fold", "missing", "blur", "contrast")
LEAST_SPACING = 4
_COUNTS = 0.25  # share of the damage in a voxel from which on it is called damaged
_CLUSTER_NM = 1200.0  # one precipitate, or none, in each square of this side
_CLUSTER_SHARE = 0.75
_SPECKS = 5  # at most, in a cluster
_CONTRAST_PIVOT = 128.0
_TRUNCATE = 3.0  # deviations of a Gaussian

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Event:
    """Damage of one kind in some consecutive slices; ``first`` is the one it begins with."""

    kind: str
    first: int
    length: int


@dataclass(frozen=True)
class Damage:
    """What is planted in a volume: one event of one kind every ``spacing`` slices, each kind as often as the others.

    Three of four events are one slice long, the others two or three; at least two slices lie between events. The first
    and the last slice may be damaged.

    Attributes:
        extent: voxels z, y, x; voxel_size_nm: nm z, y, x.
        strength: of size and depth: 1 is what a person calls damaged at a glance; 0.1 to 4.
        kinds: some of ``KINDS``.

    Raises:
        BadInput: ``strength``, ``kinds`` or ``spacing`` (at least 4) cannot be.
    """

    extent: Vec3
    voxel_size_nm: FloatVec3
    seed: int = 0
    strength: float = 1.0
    kinds: tuple[str, ...] = KINDS
    spacing: int = 8

    def __post_init__(self) -> None:
        rules = (
            (0.1 <= self.strength <= 4, f"strength {self.strength}", "it must be a number from 0.1 to 4"),
            (
                bool(self.kinds) and set(self.kinds) <= set(KINDS),
                f"kinds {', '.join(self.kinds)}",
                f"they must be some of {', '.join(KINDS)}",
            ),
            (
                self.spacing >= LEAST_SPACING,
                f"spacing {self.spacing}",
                f"there must be at least {LEAST_SPACING} slices from one event to the next",
            ),
        )
        for holds, what, rule in rules:
            if not holds:
                raise BadInput(f"damage of {what}", rule)

    def event(self, z: int) -> Event | None:
        """What damages slice ``z``."""
        period = z // self.spacing
        words = hashed(self.seed, 61, period)
        chance = _drawn(words, 0)
        length = min(1 + (chance < 0.25) + (chance < 0.08), self.spacing - 2)
        first = period * self.spacing + int(_drawn(words, 1) * (self.spacing - 1 - length))
        if not first <= z < first + length:
            return None
        turn, number = divmod(period, len(self.kinds))
        order = np.argsort(hashed(self.seed, 62, turn, np.arange(len(self.kinds))))
        return Event(self.kinds[int(order[number])], first, length)

    def planted(self, raw: Grey, box: Box, read: Callable[[Box], Grey]) -> tuple[Grey, Grey]:
        """The damaged grey levels of ``box``, and the truth: 0 sound, else 1 + the number of the kind in ``KINDS``.

        A voxel counts as damaged where a quarter of its grey level or more is the damage's.

        Args:
            raw: uint8 grey levels (z, y, x) of ``box``, which lies inside the extent.
            read: gives those of any other box inside it (blur needs some pixels more).
        """
        damaged, truth = raw.copy(), np.zeros(raw.shape, np.uint8)
        for index, z in enumerate(range(box.start[0], box.stop[0])):
            event = self.event(z)
            if event is not None:
                plane = Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))
                share, grey = self._damage(event, raw[index], plane, read)
                before = raw[index].astype(np.float32)
                damaged[index] = np.clip(np.rint(before + share * (grey - before)), 0, 255)
                truth[index][share >= _COUNTS] = 1 + KINDS.index(event.kind)
        return damaged, truth

    def _damage(self, event: Event, raw: Grey, plane: Box, read: Callable[[Box], Grey]) -> tuple[Floats, Floats]:
        """The share of the damage in every pixel, 0 .. 1, and the grey level of what is damaged wholly."""
        words = hashed(self.seed, 63, event.first)
        before = raw.astype(np.float32)
        if event.kind == "precipitate":
            return self._specks(event, plane), np.float32(12) + np.float32(0.12) * before
        if event.kind == "fold":
            return self._band(words, plane), np.float32(10) + np.float32(0.25) * before
        if event.kind == "missing":
            level = 0.0 if _drawn(words, 0) < 0.75 else 255.0
            return self._torn(words, plane), np.full(raw.shape, level, np.float32)
        if event.kind == "blur":
            return self._patch(words, plane), self._blurred(words, plane, read)
        return self._patch(words, plane), self._exposed(words, raw)

    def _exposed(self, words: Words, raw: Grey) -> Floats:
        """Squeezed and shifted grey levels; 0 means that nothing was imaged: it stays, and nothing else gets there."""
        gain = 1 - min(0.9, (0.3 + 0.3 * _drawn(words, 0)) * self._depth)
        shift = (20 + 40 * _drawn(words, 1)) * self._depth * (1 if _drawn(words, 2) < 0.5 else -1)
        grey = (raw.astype(np.float32) - np.float32(_CONTRAST_PIVOT)) * np.float32(gain)
        return np.where(raw == 0, np.float32(0), np.clip(grey + np.float32(_CONTRAST_PIVOT + shift), 1, 255))

    @property
    def _depth(self) -> float:
        return float(self.strength**0.5)

    def _specks(self, event: Event, plane: Box) -> Floats:
        """Clusters of irregular specks, 50 to 300 nm wide at strength 1, with a soft rim."""
        y, x = self._coordinates(plane)
        rough = self._noise(71, plane, 45.0)
        share = np.zeros(plane.shape[1:], np.float32)
        rows, columns = (
            range(int(axis[0] // _CLUSTER_NM) - 1, int(axis[-1] // _CLUSTER_NM) + 2) for axis in (y[:, 0], x[0])
        )
        for row in rows:
            for column in columns:
                words = hashed(self.seed, 64, event.first, row, column)
                if _drawn(words, 0) >= _CLUSTER_SHARE:
                    continue
                for number in range(1 + int(_drawn(words, 1) * _SPECKS)):
                    draw = partial(_drawn, hashed(self.seed, 65, words.astype(np.int64), number))
                    radius = (25 + 125 * draw(0) ** 2) * self._depth
                    centre = [
                        (cell + 0.2 + 0.6 * _drawn(words, 2 + axis)) * _CLUSTER_NM + (draw(1 + axis) - 0.5) * 500
                        for axis, cell in enumerate((row, column))
                    ]
                    _stamp(share, y, x, rough, centre, radius)
        return share * np.float32(min(1.0, 0.45 + 0.45 * self.strength))

    def _band(self, words: Words, plane: Box) -> Floats:
        """A winding band through the whole slice, 100 to 400 nm wide at strength 1."""
        places = self._coordinates(plane)
        along = int(_drawn(words, 0) * 2)
        extent = [n * size for n, size in zip(self.extent[1:], self.voxel_size_nm[1:], strict=True)]
        middle = [(0.15 + 0.7 * _drawn(words, 1 + axis)) * extent[axis] for axis in range(2)]
        slope = 1.2 * (_drawn(words, 3) - 0.5)
        across = places[1 - along] - middle[1 - along] - slope * (places[along] - middle[along])
        across = across / (1 + slope * slope) ** 0.5 + 110.0 * self._noise(72, plane, 900.0)
        half = (50 + 150 * _drawn(words, 4)) * self._depth * (1 + 0.15 * self._noise(73, plane, 150.0))
        rim = 25.0
        opaque = min(1.0, 0.5 + 0.4 * self.strength)
        return np.asarray(np.clip((half - np.abs(across)) / rim + 1, 0, 1) * opaque, np.float32)

    def _torn(self, words: Words, plane: Box) -> Floats:
        """The whole slice, or one side of a tear."""
        if self._is_whole(words):
            return np.ones(plane.shape[1:], np.float32)
        y, x = self._coordinates(plane)
        direction = [2 * _drawn(words, 1 + axis) - 1 for axis in range(2)]
        length = max(1e-6, (direction[0] ** 2 + direction[1] ** 2) ** 0.5)
        half = [n * size / 2 for n, size in zip(self.extent[1:], self.voxel_size_nm[1:], strict=True)]
        reach = sum(abs(d) / length * h for d, h in zip(direction, half, strict=True))
        part = (0.15 + 0.25 * _drawn(words, 3)) * self._depth  # of the slice's width along the direction
        beyond = ((y - half[0]) * direction[0] + (x - half[1]) * direction[1]) / length - reach * (1 - 2 * part)
        return np.asarray(beyond + 12.0 * self._noise(74, plane, 60.0) > 0, np.float32)

    def _patch(self, words: Words, plane: Box) -> Floats:
        """The whole slice, or a region with a soft rim, 1 to 2.5 um wide at strength 1."""
        if self._is_whole(words):
            return np.ones(plane.shape[1:], np.float32)
        y, x = self._coordinates(plane)
        height, width = (n * size for n, size in zip(self.extent[1:], self.voxel_size_nm[1:], strict=True))
        radius = (500 + 750 * _drawn(words, 11)) * self._depth
        far = (y - height * _drawn(words, 12)) ** 2 + (x - width * _drawn(words, 13)) ** 2
        inside = radius * (1 + 0.15 * self._noise(75, plane, 500.0)) - np.sqrt(far)
        return np.asarray(np.clip(inside / 80.0, 0, 1), np.float32)

    def _blurred(self, words: Words, plane: Box, read: Callable[[Box], Grey]) -> Floats:
        sigma_nm = (10 + 20 * _drawn(words, 0)) * self._depth
        sigma = [max(1.0, sigma_nm / size) for size in self.voxel_size_nm[1:]]
        halo = vec3((0, *(ceil(_TRUNCATE * s) + 1 for s in sigma)))
        wide = plane.grown(halo).clipped(Box.of_shape(self.extent))
        grey = gaussian_filter(read(wide)[0].astype(np.float32), sigma, mode="nearest", truncate=_TRUNCATE)
        return np.asarray(grey[plane.slices(wide.start)[1:]], np.float32)

    def _is_whole(self, words: Words) -> bool:
        return _drawn(words, 10) < self.strength / (1 + self.strength)

    def _coordinates(self, plane: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        y, x = (
            np.arange(a, b, dtype=np.float64) * size
            for a, b, size in zip(plane.start[1:], plane.stop[1:], self.voxel_size_nm[1:], strict=True)
        )
        return y[:, None], x[None, :]

    def _noise(self, stream: int, plane: Box, spacing_nm: float) -> Floats:
        """Smooth noise in one slice, within -1.5 .. 1.5."""
        y, x = (max(1, round(spacing_nm / size)) for size in self.voxel_size_nm[1:])
        return np.asarray(np.clip(value_noise(self.seed, stream, plane, (1, y, x))[0], -1.5, 1.5), np.float32)


def plant(
    raw: Grey,
    voxel_size_nm: FloatVec3,
    kinds: tuple[str, ...] = KINDS,
    strength: float = 1.0,
    seed: int = 0,
    spacing: int = 8,
) -> tuple[Grey, Grey]:
    """Damage a whole volume in memory: the damaged grey levels and the truth, both uint8 z, y, x; see ``Damage``."""
    damage = Damage(vec3(raw.shape), voxel_size_nm, seed, strength, kinds, spacing)
    return damage.planted(raw, Box.of_shape(raw.shape), lambda box: raw[box.slices()])


def _drawn(words: Words, field: int) -> float:
    return float(uniform(words, field).flat[0])


def _stamp(
    share: Floats,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    rough: Floats,
    centre: list[float],
    radius: float,
) -> None:
    """One rough disc, drawn with a maximum: the order of specks does not matter."""
    reach = 1.6 * radius
    rows, columns = (
        slice(*np.searchsorted(axis, (middle - reach, middle + reach)))
        for axis, middle in zip((y[:, 0], x[0]), centre, strict=True)
    )
    far = np.sqrt((y[rows] - centre[0]) ** 2 + (x[:, columns] - centre[1]) ** 2)
    inside = radius * (1 + 0.3 * rough[rows, columns]) - far
    np.maximum(share[rows, columns], np.clip(inside / (0.25 * radius), 0, 1), out=share[rows, columns])
