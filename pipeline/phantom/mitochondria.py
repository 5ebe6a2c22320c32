"""Where the mitochondria are: candidates from a lattice of cells, thinned by a rule that looks at neighbours only.

A candidate is dropped when any better-ranked candidate comes closer than ``CLEARANCE`` of the sum of their radii
(Matérn's second hard-core process; Matérn, Spatial Variation, 1960): no chain of decisions, hence no box dependence.
Overlaps that are left are shallow and go to the deeper one. Then every mitochondrion keeps its whole centre line, and
walking from any of its voxels to that line never leaves it: each is one connected component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Vec3, vec3
from pipeline.phantom.noise import Words, hashed, uniform
from pipeline.phantom.shapes import Chains, Doubles

DOMAIN_NM = 1280.0
SLOTS = 5  # candidates a cell: three free ones, and companions of the first two
FREE = 3
REACH_NM = 2300.0  # no part of a mitochondrion is farther than this from its cell
CLEARANCE = 0.82
_STREAM = 11
_TRUNK, _BRANCH = 8, 3  # segments


@dataclass(frozen=True)
class Mitochondria:
    """Some mitochondria, in order of their ids.

    Attributes:
        cell: (n, 3) int64, the lattice cell each comes from; slot: (n,) its number in the cell.
        chains: their shapes; words: (n,) hashes, for whatever else is random about each.
        branched: (n,) bool.
    """

    cell: NDArray[np.int64]
    slot: NDArray[np.int64]
    words: Words
    chains: Chains
    branched: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, which: NDArray[np.bool_]) -> Mitochondria:
        return Mitochondria(
            self.cell[which], self.slot[which], self.words[which], self.chains[which], self.branched[which]
        )


def mitochondria(seed: int, low: Doubles, high: Doubles) -> Mitochondria:
    """All mitochondria whose bounding boxes meet the box ``low .. high`` (nm, z, y, x)."""
    meeting = _meeting(seed, low, high)
    if not len(meeting):
        return meeting
    lows, highs = meeting.chains.bounds()
    rivals = _meeting(seed, lows.min(axis=0), highs.max(axis=0))
    return meeting[~_beaten(meeting, rivals)]


def ids(found: Mitochondria, extent_nm: Doubles) -> NDArray[np.uint64]:
    """Global ids, uint64 > 0, stable for an extent; above 2^32 for a petavoxel."""
    margin = int(REACH_NM // DOMAIN_NM) + 1
    _, ny, nx = vec3(extent_nm // DOMAIN_NM + 1 + 2 * margin)
    z, y, x = ((found.cell[:, axis] + margin).astype(np.uint64) for axis in range(3))
    number = (z * np.uint64(ny) + y) * np.uint64(nx) + x
    return number * np.uint64(SLOTS) + found.slot.astype(np.uint64) + np.uint64(1)


def _meeting(seed: int, low: Doubles, high: Doubles) -> Mitochondria:
    """The candidates whose bounding boxes meet the box."""
    cell, slot = _cells(vec3((low - REACH_NM) // DOMAIN_NM), vec3((high + REACH_NM) // DOMAIN_NM))
    words = hashed(seed, _STREAM, cell[:, 0], cell[:, 1], cell[:, 2], slot)
    exists = uniform(words, 0) < np.where(slot >= FREE, 0.6, 0.95)
    cell, slot, words = cell[exists], slot[exists], words[exists]
    # A companion copies the course of its model, shifted sideways by about the sum of the radii.
    model = hashed(seed, _STREAM, cell[:, 0], cell[:, 1], cell[:, 2], np.where(slot >= FREE, slot - FREE, slot))
    chains, branched = _grown(cell, slot, words, model)
    lows, highs = chains.bounds()
    meeting = np.asarray(((lows <= high) & (highs >= low)).all(axis=1), np.bool_)
    return Mitochondria(cell, slot, words, chains, branched)[meeting]


def _cells(first: Vec3, last: Vec3) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    axes = [np.arange(a, b + 1, dtype=np.int64) for a, b in zip(first, last, strict=True)]
    grid = np.stack(np.meshgrid(*axes, np.arange(SLOTS, dtype=np.int64), indexing="ij"), axis=-1).reshape(-1, 4)
    return grid[:, :3], grid[:, 3]


def _grown(
    cell: NDArray[np.int64], slot: NDArray[np.int64], words: Words, model: Words
) -> tuple[Chains, NDArray[np.bool_]]:
    radius = _radius(words)
    half = 230.0 + 950.0 * uniform(model, 3) ** 2
    branched = (uniform(words, 4) < 0.3) & (half > 400.0) & (slot < FREE)
    direction = _direction(model, 10)
    bend, twist = _direction(model, 20), _direction(model, 30)
    t = np.linspace(-1.0, 1.0, _TRUNK + 1)[None, :, None]
    length = half[:, None, None]
    centre = (cell + np.stack([uniform(model, 5 + axis) for axis in range(3)], axis=1)) * DOMAIN_NM
    line = centre[:, None, :] + length * (
        direction[:, None, :] * t + bend[:, None, :] * (0.3 * t * t - 0.1) + twist[:, None, :] * (0.5 * (t * t * t - t))
    )
    line = line + _sideways(slot, words, radius, _radius(model), direction)[:, None, :]
    radii = _profile(words, radius)
    arm, arm_radii = _arm(words, branched, line[:, _TRUNK // 2], radii[:, _TRUNK // 2])
    chains = Chains(
        np.concatenate([line[:, :-1], arm[:, :-1]], axis=1),
        np.concatenate([line[:, 1:], arm[:, 1:]], axis=1),
        np.concatenate([radii[:, :-1], arm_radii[:, :-1]], axis=1),
        np.concatenate([radii[:, 1:], arm_radii[:, 1:]], axis=1),
    )
    return chains, branched


def _radius(words: Words) -> Doubles:
    return 125.0 + 125.0 * uniform(words, 2)


def _sideways(slot: NDArray[np.int64], words: Words, radius: Doubles, other: Doubles, direction: Doubles) -> Doubles:
    """The shift of a companion, at right angles to the course; none for the free ones."""
    random = _direction(words, 40)
    along = (random * direction)[:, 0] + (random * direction)[:, 1] + (random * direction)[:, 2]
    normal = _unit(random - along[:, None] * direction)
    distance = (radius + other) * (0.86 + 0.1 * uniform(words, 50))
    return np.where(slot >= FREE, distance, 0.0)[:, None] * normal


def _profile(words: Words, radius: Doubles) -> Doubles:
    """Radii at the nodes of the trunk: a slow wobble, a little thinner at both ends."""
    wobble = np.stack([uniform(words, 60 + node) for node in range(_TRUNK + 3)], axis=1)
    smooth = 0.25 * wobble[:, :-2] + 0.5 * wobble[:, 1:-1] + 0.25 * wobble[:, 2:]
    t = np.linspace(-1.0, 1.0, _TRUNK + 1)[None, :]
    return radius[:, None] * (0.8 + 0.36 * smooth) * (1.0 - 0.18 * t * t * t * t)


def _arm(words: Words, branched: NDArray[np.bool_], root: Doubles, radius: Doubles) -> tuple[Doubles, Doubles]:
    """The nodes of a side branch; all at the root where there is none."""
    t = np.linspace(0.0, 1.0, _BRANCH + 1)[None, :, None]
    length = np.where(branched, 450.0 + 350.0 * uniform(words, 51), 0.0)[:, None, None]
    course = _direction(words, 80)[:, None, :] * t + _direction(words, 90)[:, None, :] * (0.4 * t * t)
    return root[:, None, :] + length * course, radius[:, None] * (1.0 - 0.25 * t[..., 0])


def _direction(words: Words, field: int) -> Doubles:
    """Unit vectors (n, 3), nearly isotropic: sums of three uniform numbers are close to normal."""
    rows = [
        uniform(words, field + 3 * axis) + uniform(words, field + 3 * axis + 1) + uniform(words, field + 3 * axis + 2)
        for axis in range(3)
    ]
    return _unit(np.stack(rows, axis=1) - 1.5)


def _unit(vectors: Doubles) -> Doubles:
    z, y, x = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return vectors / (np.sqrt(z * z + y * y + x * x) + 1e-9)[:, None]


def _beaten(asked: Mitochondria, rivals: Mitochondria) -> NDArray[np.bool_]:
    """For each asked candidate: does a better-ranked rival come too close?"""
    lows, highs = rivals.chains.bounds()
    asked_lows, asked_highs = asked.chains.bounds()
    points, radii = rivals.chains.samples()
    asked_points, asked_radii = asked.chains.samples()
    rank, asked_rank = _rank(rivals), _rank(asked)
    beaten = np.zeros(len(asked), np.bool_)
    for i in range(len(asked)):
        meets = ((lows <= asked_highs[i]) & (highs >= asked_lows[i])).all(axis=1) & (rank < asked_rank[i])
        gap = asked_points[i][None, :, None, :] - points[meets][:, None, :, :]
        square = gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1] + gap[..., 2] * gap[..., 2]
        least = CLEARANCE * (asked_radii[i][None, :, None] + radii[meets][:, None, :])
        beaten[i] = bool((square < least * least).any())
    return beaten


def _rank(candidates: Mitochondria) -> Doubles:
    return uniform(candidates.words, 1) + (candidates.slot >= FREE)  # companions give way to free ones
