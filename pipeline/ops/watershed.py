"""Flooding the mask from seeds: the watershed baseline of the MitoEM challenge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def flood(labels: NDArray[np.uint32], semantic: NDArray[np.uint8], mask_above: int) -> NDArray[np.uint32]:
    """Watershed of ``-semantic`` from labelled seeds, over faces, restricted to ``semantic > mask_above``.

    The voxels of highest probability are flooded first; among equal ones those that were reached first. Nothing bounds
    how far a basin reaches, so a block floods as the whole volume does only where its halo holds all that decides it:
    a seed or a plateau beyond the halo can move the border between two touching instances near the block's face. With
    seeds that fill most of the mask few voxels differ (``tests/ops/test_watershed.py``); growth (``ops.grow``) has no
    such limit.

    Source: ``bc_watershed`` of pytorch_connectomics, by ``skimage.segmentation.watershed``.

    Args:
        labels: ids of the seeds, z, y, x, below 2^31; 0 is none. They stay, also outside of the mask.
        semantic: probability, same shape.
        mask_above: exclusive lower threshold on the 0..255 scale. Published: ``int(255 * .85)`` = 216.

    Returns:
        uint32 ids of the same shape.
    """
    from skimage.segmentation import watershed

    mask = semantic > mask_above
    mask |= labels != 0
    flooded = watershed(  # type: ignore[no-untyped-call]
        255 - semantic, labels.astype(np.int32), connectivity=1, mask=mask
    )
    return np.asarray(flooded, np.uint32)
