"""Seeds and their block-local labels: the first step from probability maps to instances."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.image.quantise import to_uint8

Connectivity = Literal[6, 18, 26]


def seeds(
    semantic: NDArray[Any], boundary: NDArray[Any], semantic_above: int, boundary_below: int
) -> NDArray[np.bool_]:
    """Voxels surely inside a mitochondrion: ``semantic > semantic_above`` and ``boundary < boundary_below``.

    Args:
        semantic: probability of being mitochondrion, z, y, x; uint8, or float in 0..1 (see ``to_uint8``).
        boundary: probability of being an instance's boundary, same shape.
        semantic_above: exclusive lower threshold on the 0..255 scale. Published: ``int(255 * .9)`` = 229.
        boundary_below: exclusive upper threshold on the 0..255 scale. Published: ``int(255 * .8)`` = 204.

    Source: post-processing of the Res-UNet-R/H entry to MitoEM 2021 (Li et al., 2021), as coded there.
    """
    inside = to_uint8(semantic) > semantic_above
    inside &= to_uint8(boundary) < boundary_below
    return inside


def label(seeds: NDArray[Any], connectivity: Connectivity) -> tuple[NDArray[np.uint32], int]:
    """Connected components of the nonzero voxels of one block.

    Args:
        seeds: bool or uint8, z, y, x.
        connectivity: 6 (faces), 18 (and edges) or 26 (and corners).

    Returns:
        uint32 labels 1..n, C order, numbered by their first voxel in z, y, x order, and n.
    """
    if not seeds.any():
        return np.zeros(seeds.shape, np.uint32), 0
    # cc3d numbers in memory order, so only an array in C order gets its labels in z, y, x order.
    padded = np.ascontiguousarray(_with_room(seeds, connectivity))
    labels, count = _components(padded, connectivity)
    z, y, x = seeds.shape
    return np.ascontiguousarray(labels[:z, :y, :x], dtype=np.uint32), count


def _components(mask: NDArray[Any], connectivity: Connectivity) -> tuple[NDArray[np.uint32], int]:
    """By cc3d; by scipy, with the same numbers, where a machine for training lacks cc3d."""
    try:
        import cc3d
    except ModuleNotFoundError:
        from scipy import ndimage

        neighbours = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
        numbered, found = ndimage.label(mask, neighbours)
        return numbered.astype(np.uint32), int(found)
    labels, count = cc3d.connected_components(
        mask, connectivity=connectivity, return_N=True, binary_image=True, out_dtype=np.uint32
    )
    return np.asarray(labels, np.uint32), int(count)


def _with_room(seeds: NDArray[Any], connectivity: Connectivity) -> NDArray[Any]:
    """The seeds, for 26-connectivity with odd lengths made even by a plane of zeros.

    cc3d 4.1.1 makes room for voxels / 8 + 1 labels under 26-connectivity. Single voxels two apart need more than that
    where a length is odd, as in a block one section thick, and it stops with "maximum length exception".
    """
    if connectivity == 26 and any(length % 2 for length in seeds.shape):
        return np.pad(seeds, [(0, length % 2) for length in seeds.shape])
    return seeds
