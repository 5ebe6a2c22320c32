"""Flooding the mask from seeds: the watershed baseline of the MitoEM challenge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.instances.ops.grow import beside, claimed, flat_steps


def flood(labels: NDArray[Any], semantic: NDArray[np.uint8], mask_above: int) -> NDArray[Any]:
    """Watershed of ``-semantic`` from labelled seeds, over faces, restricted to ``semantic > mask_above``.

    Labelled voxels of the highest probability offer their labels to their neighbours first, whose own probability
    decides when these do. Voxels of one probability that wait at the same time offer at once, and the smallest label
    wins: so the result does not depend on where the array begins, as that of a queue does. With no two probabilities
    equal it is that of ``skimage.segmentation.watershed``.

    Nothing bounds how far a basin reaches. Parts of the mask that do not touch flood as they would alone, so every
    connected part of the mask that a block with its halo holds whole is flooded as in the whole volume. Of a part that
    leaves the halo, voxels near the block's faces may fall to another of the instances that touch there than in the
    whole volume; growth (``ops.grow``) has no such limit. Measured on phantoms (96x256x256 at 10 nm, in blocks of
    32x64x64) and a predicted map of lucchi (33x512x512 at 5 nm, in blocks of 16x64x64): without a halo 68 to 3,817 of
    63,000 to 409,000 flooded voxels differ, with one of 50 nm and more none.

    Source: ``bc_watershed`` of pytorch_connectomics.

    Args:
        labels: ids of the seeds, z, y, x, an unsigned dtype; 0 is none. They stay, also outside of the mask.
        semantic: probability, same shape.
        mask_above: exclusive lower threshold on the 0..255 scale. Published: ``int(255 * .85)`` = 216.

    Returns:
        Ids of the same shape and dtype, in an array of its own (a view into a padded one).
    """
    flooded, levels = np.pad(labels, 1), np.pad(semantic, 1).reshape(-1)
    state = np.zeros(flooded.shape, np.uint8)
    np.logical_and(semantic > mask_above, labels == 0, out=state[1:-1, 1:-1, 1:-1].view(np.bool_))
    flat, steps = flooded.reshape(-1), flat_steps(flooded.shape)
    seeds = np.flatnonzero(beside(state.reshape(-1), steps) & (flat != 0))
    _flood(flat, state.reshape(-1), levels, seeds, steps)
    return flooded[1:-1, 1:-1, 1:-1]


def _flood(
    flooded: NDArray[Any],
    state: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    seeds: NDArray[np.intp],
    steps: tuple[int, ...],
) -> None:
    """Label free voxels in place; ``waiting`` holds the labelled ones that have made no offer, by their level."""
    waiting: dict[int, list[NDArray[np.intp]]] = {}
    fresh = seeds
    while True:
        for level, voxels in _by_level(fresh, levels):
            waiting.setdefault(level, []).append(voxels)
        if not waiting:
            return
        highest = np.concatenate(waiting.pop(max(waiting)))
        values = flooded[highest]
        fresh = np.concatenate([claimed(flooded, state, highest + step, values) for step in steps])
        state[fresh] = 0


def _by_level(voxels: NDArray[np.intp], levels: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.intp]]]:
    order = np.argsort(levels[voxels], kind="stable")
    found = levels[voxels][order]
    cuts = np.flatnonzero(found[1:] != found[:-1]) + 1
    parts = np.split(voxels[order], cuts) if voxels.size else []
    return [(int(levels[part[0]]), part) for part in parts]
