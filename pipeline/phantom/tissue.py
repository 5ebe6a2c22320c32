"""Cytoplasm, cell membranes, endoplasmic reticulum and vesicles: grey values of everything but the large organelles."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Box, vec3
from pipeline.phantom.noise import Floats, hashed, uniform, value_noise
from pipeline.phantom.scene import Coarse, Scene
from pipeline.phantom.shapes import Doubles

_COLOURS = 5
_COLOUR_GREY = (172.0, 184.0, 160.0, 176.0, 166.0)
_SEED_CELL_NM = 620.0
_VESICLE_CELL_NM = 54.0
_VESICLE_REACH_NM = 30.0


def tissue(at: Scene, coarse: Coarse, gap: Floats, fine: Floats, medium: Floats) -> Floats:
    """The image of a scene without mitochondria and other bodies, float32.

    Args:
        gap: distance to the nearest mitochondrion, nm; fine, medium: noise of two scales.
    """
    image, membrane = _compartments(at, coarse)
    image += fine * np.float32(13)
    image += np.minimum(medium, np.float32(0.8)) * np.float32(15)
    _reticulum(image, at.noise(25, 110.0), at.wobble)
    _sheets(image, membrane, gap, at.wobble)
    _vesicles(image, at, _vesicle_centres(at, coarse))
    return image


def _compartments(at: Scene, coarse: Coarse) -> tuple[Floats, Floats]:
    """Base grey, and the distance to the nearest cell membrane (nm), of a warped Voronoi partition.

    Seeds have one of five colours; neighbours of one colour are one cell, which gives cells of irregular shape. The
    distance to each colour is smooth, so it can be interpolated; where the two least are equal is a membrane.
    """
    least = np.full(at.box.shape, 1e6, np.float32)
    second = least.copy()
    base = np.zeros(at.box.shape, np.float32)
    for colour, field in enumerate(_colour_distances(at.seed, coarse)):
        here = coarse.to(field, at.box)
        np.copyto(base, np.float32(_COLOUR_GREY[colour]), where=here < least)
        np.minimum(second, np.maximum(here, least), out=second)
        np.minimum(least, here, out=least)
    second -= least
    second *= np.float32(0.5)
    return base, second


def _colour_distances(seed: int, coarse: Coarse) -> Floats:
    """(colour, z, y, x) distance in nm to the nearest seed of each colour, among the 27 lattice cells around."""
    forms = ([-1, 1, 1], [1, -1, 1], [1, 1, -1])
    cell, inside = [], []
    for axis, (place, form) in enumerate(zip(coarse.axes, forms, strict=True)):
        bend = value_noise(seed, 31 + axis, coarse.box, (4, 4, 4)) * np.float64(70.0)
        lattice = (place.reshape(form) + bend) / _SEED_CELL_NM
        cell.append(np.floor(lattice).astype(np.int64))
        inside.append((lattice - cell[-1]).astype(np.float32))
    low = [int(c.min()) - 1 for c in cell]
    z, y, x = (np.arange(a, int(c.max()) + 2) for a, c in zip(low, cell, strict=True))
    words = hashed(seed, 41, z[:, None, None], y[None, :, None], x[None, None, :])
    colours = (uniform(words, 3) * _COLOURS).astype(np.int8)
    jitter = [(0.1 + 0.8 * uniform(words, axis)).astype(np.float32) for axis in range(3)]
    square = np.full((_COLOURS, *coarse.box.shape), 2.5**2, np.float32)
    for step in np.ndindex(3, 3, 3):
        index = tuple(c - a - 1 + d for c, a, d in zip(cell, low, step, strict=True))
        distance = np.zeros(coarse.box.shape, np.float32)
        for axis, d in enumerate(step):
            delta = inside[axis] - (jitter[axis][index] + np.float32(d - 1))
            distance += delta * delta
        colour = colours[index]
        for number in range(_COLOURS):
            np.minimum(square[number], distance, out=square[number], where=colour == number)
    return np.sqrt(square) * np.float32(_SEED_CELL_NM)


def _reticulum(image: Floats, folds: Floats, where: Floats) -> None:
    """Short thin dark sheets inside cells, in places: endoplasmic reticulum."""
    line = np.maximum(np.float32(1) - np.abs(folds) * np.float32(1 / 0.22), np.float32(0))
    line *= np.clip(where - np.float32(0.5), np.float32(0), np.float32(0.8))
    image -= line * np.float32(85)


def _sheets(image: Floats, membrane: Floats, gap: Floats, wobble: Floats) -> None:
    """Cell membranes; near a mitochondrion they give way to a sheath around it, so that none crosses it."""
    margin = np.float32(85) + np.clip(wobble, np.float32(-1.1), np.float32(2)) * np.float32(45)
    sheath = np.abs(gap - margin)
    within = gap < margin
    distance = np.where(within, sheath, np.minimum(sheath, membrane))
    image -= within * np.float32(14)
    dark = np.maximum(np.float32(1) - (distance * np.float32(1 / 21)) ** 2, np.float32(0))
    image -= (image - np.float32(62)) * dark


def _vesicles(image: Floats, at: Scene, centres: Doubles) -> None:
    """Small dark rings; each is stamped with a maximum, so their order does not matter."""
    forms = ([1, -1, 1, 1], [1, 1, -1, 1], [1, 1, 1, -1])
    flat = np.zeros(1, np.int64)
    square, inside = np.zeros(1), np.ones(1, np.bool_)
    for axis, (nm, start, length) in enumerate(zip(at.size, at.box.start, at.box.shape, strict=True)):
        reach = int(_VESICLE_REACH_NM // nm) + 1
        centre = centres[:, axis].reshape(-1, 1, 1, 1)
        place = np.floor(centre / nm + 0.5).astype(np.int64) + np.arange(-reach, reach + 1).reshape(forms[axis])
        delta = place * nm - centre
        square = square + delta * delta
        inside = inside & (place >= start) & (place < start + length)
        flat = flat * length + (place - start)
    ring = np.maximum(1.0 - ((np.sqrt(square) - 17.0) / 11.0) ** 2, 0.0).astype(np.float32)
    darker = np.zeros(at.box.size, np.float32)
    np.maximum.at(darker, flat[inside], ring[inside])
    image -= np.maximum(image - np.float32(80), np.float32(0)) * darker.reshape(at.box.shape)


def _vesicle_centres(at: Scene, coarse: Coarse) -> Doubles:
    """Centres (n, 3) in nm of all vesicles that reach into the box: in clouds, and clear of mitochondria."""
    size = np.array(at.size)
    low = (np.array(at.box.start) * size - _VESICLE_REACH_NM - size) // _VESICLE_CELL_NM
    high = (np.array(at.box.stop) * size + _VESICLE_REACH_NM + size) // _VESICLE_CELL_NM
    lattice = Box(vec3(low), vec3(high + 1))
    cloud = value_noise(at.seed, 51, lattice, (15, 15, 15))
    cell = np.stack(np.nonzero(cloud > 1.0), axis=1) + np.array(lattice.start)
    words = hashed(at.seed, 52, cell[:, 0], cell[:, 1], cell[:, 2])
    centres = (cell + np.stack([uniform(words, axis) for axis in range(3)], axis=1)) * _VESICLE_CELL_NM
    spacing = np.array(coarse.steps) * size
    point = np.floor(centres / spacing + 0.5).astype(np.int64) - np.array(coarse.box.start)
    known = ((point >= 0) & (point < np.array(coarse.box.shape))).all(axis=1)  # the others stay out of the box
    point = np.where(known[:, None], point, 0)
    free = coarse.outside[point[:, 0], point[:, 1], point[:, 2]] > 60
    return np.asarray(centres[known & free & (uniform(words, 3) < 0.8)])
