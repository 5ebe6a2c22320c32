"""Bodies in the tissue: mitochondria, and the dense bodies and myelin whorls that are mistaken for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.noise import Floats, hashed, uniform
from pipeline.phantom.scene import Scene
from pipeline.phantom.shapes import Chains, Doubles, depth

_BODY_RIM_NM = -34.0  # beyond the roughness of a body's surface and its soft edge


def draw_dense_bodies(image: Floats, at: Scene, gap: Floats, fine: Floats) -> None:
    """Dense bodies and myelin-like whorls, a few tens of nanometres away from every mitochondrion."""
    low = np.array([axis[0] for axis in at.axes])
    high = np.array([axis[-1] for axis in at.axes])
    chains, whorl = _bodies(at.seed, low, high)
    wobble = np.clip(at.wobble, np.float32(-2), np.float32(2)) * np.float32(12)
    for number in range(len(chains)):
        drawn = depth(chains, number, at.axes, _BODY_RIM_NM)
        if drawn is None:
            continue
        part, inside = drawn
        inside = np.minimum(inside + wobble[part], gap[part] - np.float32(45))
        cover = np.clip(inside * np.float32(1 / 12) + np.float32(0.5), np.float32(0), np.float32(1))
        if whorl[number]:
            turn = inside * np.float32(1 / 46)
            turn -= np.floor(turn)
            value = np.float32(60) + np.abs(turn - np.float32(0.5)) * np.float32(190)
        else:
            value = np.float32(72) + fine[part] * np.float32(9)
        image[part] += (value - image[part]) * cover


def _bodies(seed: int, low: Doubles, high: Doubles) -> tuple[Chains, NDArray[np.bool_]]:
    """Up to three bodies a cell of a lattice of their own: the chains, and which are whorls."""
    cell_nm, reach = 1100.0, 700.0
    axes = [
        np.arange(int((a - reach) // cell_nm), int((b + reach) // cell_nm) + 1) for a, b in zip(low, high, strict=True)
    ]
    cells = np.stack(np.meshgrid(*axes, np.arange(3), indexing="ij"), axis=-1).reshape(-1, 4)
    words = hashed(seed, 61, *(cells[:, axis] for axis in range(4)))
    whorl = (cells[:, 3] == 0) & (uniform(words, 9) < 0.25)
    centre = (cells[:, :3] + np.stack([uniform(words, axis) for axis in range(3)], axis=1)) * cell_nm
    course = np.stack([uniform(words, 3 + axis) - 0.5 for axis in range(3)], axis=1)
    course = course * np.where(whorl, 500.0, 160.0)[:, None]
    radius = np.where(whorl, 130.0 + 120.0 * uniform(words, 6), 45.0 + 75.0 * uniform(words, 6))[:, None]
    chains = Chains((centre - course)[:, None], (centre + course)[:, None], radius, radius)
    lows, highs = chains.bounds()
    meeting = np.asarray(((lows <= high - _BODY_RIM_NM) & (highs >= low + _BODY_RIM_NM)).all(axis=1), np.bool_)
    return chains[meeting], whorl[meeting]


def draw_mitochondria(image: Floats, at: Scene, fine: Floats, medium: Floats) -> None:
    """Mitochondria: a dark outline, also where two touch, and a matrix crossed by folds of the inner membrane."""
    rough = at.surface()
    surface = np.minimum(rough, (at.depth - at.second) * np.float32(0.5) + np.float32(2))
    rim = np.flatnonzero(rough > np.float32(-26))
    if not len(rim):
        return
    d, old = surface.reshape(-1)[rim], image.reshape(-1)[rim]
    inner = np.float32(102) + _cristae(at, rim, medium) + fine.reshape(-1)[rim] * np.float32(8)
    cover = np.clip(d * np.float32(1 / 10) + np.float32(0.5), np.float32(0), np.float32(1))
    outline = np.maximum(np.float32(1) - (np.abs(d - np.float32(2)) * np.float32(1 / 24)) ** 2, np.float32(0))
    cover = np.where(rough.reshape(-1)[rim] > 0, np.float32(1), cover)
    value = old + (inner - old) * cover
    value -= (value - np.float32(66)) * outline * np.float32(0.8)
    image.reshape(-1)[rim] = value


def _cristae(at: Scene, where: NDArray[np.int64], medium: Floats) -> Floats:
    """Wavy parallel lamellae about 55 nm apart, fading in and out; plus each mitochondrion's own tone."""
    owner = at.owner.reshape(-1)[where]
    words = at.found.words
    normal = np.stack([uniform(words, 100 + axis) - 0.5 for axis in range(3)], axis=1)
    length = np.sqrt(normal[:, 0] ** 2 + normal[:, 1] ** 2 + normal[:, 2] ** 2) + 1e-9
    normal = normal / (length * (50.0 + 20.0 * uniform(words, 104)))[:, None]
    index = np.unravel_index(where, at.box.shape)
    centre = (at.found.cell + 0.5) * 1280.0
    phase = np.zeros(len(where), np.float32)
    for axis in range(3):
        offset = at.axes[axis][index[axis]] - centre[owner, axis]
        phase += (offset * normal[owner, axis]).astype(np.float32)
    noise, wobble = medium.reshape(-1)[where], at.wobble.reshape(-1)[where]
    phase += noise * np.float32(0.22) + wobble * np.float32(0.35)
    wave = np.abs(phase - np.floor(phase) - np.float32(0.5)) * np.float32(4) - np.float32(1)
    strength = np.clip(np.float32(13) + noise * np.float32(7), np.float32(2), np.float32(24))
    tone = ((uniform(words, 103) - 0.5) * 16.0).astype(np.float32)
    return np.asarray(wave * strength + tone[owner], np.float32)
