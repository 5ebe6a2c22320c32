"""From a scene to grey values.

Grey levels and profiles follow the lucchi++ volume (EPFL hippocampus, FIB-SEM) averaged to 10 nm: interior of
mitochondria 101, their outline 81, tissue around them 141 +- 41, differences of neighbouring voxels 17.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.noise import white_noise
from pipeline.phantom.organelles import draw_dense_bodies, draw_mitochondria
from pipeline.phantom.scene import Scene
from pipeline.phantom.tissue import tissue


def grey(at: Scene) -> NDArray[np.uint8]:
    """The image (z, y, x) of a scene, uint8."""
    coarse = at.coarse()
    gap = coarse.to(coarse.outside, at.box)
    fine, medium = at.noise(22, 32.0), at.noise(23, 75.0)
    image = tissue(at, coarse, gap, fine, medium)
    draw_dense_bodies(image, at, gap, fine)
    draw_mitochondria(image, at, fine, medium)
    # Shot noise: its deviation goes with the root of the grey value.
    image += white_noise(at.seed, 24, at.box) * np.sqrt(np.maximum(image, np.float32(0))) * np.float32(0.38)
    clipped = np.clip(image + np.float32(0.5), np.float32(0), np.float32(255))
    return np.asarray(clipped.astype(np.uint8))
