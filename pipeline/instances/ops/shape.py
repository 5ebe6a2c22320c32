"""The columns of the instance table: one row for each final instance, in physical units."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import FloatVec3, Vec3
from pipeline.instances.ops.fragments import PRODUCTS, Rows, moved_moments
from pipeline.instances.ops.select import touches_border
from pipeline.instances.ops.surface import surface_nm2

AXES = ("z", "y", "x")
NM2_PER_UM2, NM3_PER_UM3 = 1e6, 1e9


def instance_columns(
    rows: Rows,
    pairs: NDArray[np.uint64],
    extent: Vec3,
    voxel_size_nm: FloatVec3,
    offset_nm: FloatVec3,
    first_id: int = 1,
) -> dict[str, NDArray[Any]]:
    """Sizes, places, shapes and confidence of instances.

    Voxel i spans ``i * size + offset`` to ``(i + 1) * size + offset``; its centre is at ``i + 0.5``.

    Args:
        rows: ``FRAGMENT`` rows of whole instances; row i is instance ``first_id + i``.
        pairs: (n, 13) pairs of neighbouring voxels of each, as ``surface.DIRECTIONS``.
        extent: shape of the volume in voxels, z, y, x.
        voxel_size_nm: z, y, x.
        offset_nm: position of voxel (0, 0, 0), z, y, x.
        first_id: the id of the first row.

    Returns:
        One-dimensional arrays by column: ``id`` and ``voxels`` (uint64), ``volume_um3``, ``z0_nm y0_nm x0_nm z1_nm
        y1_nm x1_nm`` (bounding box), ``centroid_z_nm centroid_y_nm centroid_x_nm``, ``mean_semantic_probability``
        (0..1), ``surface_um2`` (see ``surface_nm2``), ``elongation`` and ``flatness`` (1 for a ball; roots of the
        ratios of the largest to the second and of the second to the smallest principal moment, as ITK defines them)
        (all float64) and ``touches_border`` (bool: the bounding box reaches the volume's first or last voxel on some
        axis).
    """
    size, offset = np.array(voxel_size_nm, np.float64), np.array(offset_nm, np.float64)
    voxels = rows["voxels"].astype(np.float64)
    smallest, second, largest = principal_moments_nm2(rows, voxel_size_nm).T
    centroid = (rows["coordinate_sum"] / voxels[:, None] + 0.5) * size + offset
    columns = {
        "id": np.arange(first_id, first_id + len(rows), dtype=np.uint64),
        "voxels": rows["voxels"],
        "volume_um3": voxels * (prod(voxel_size_nm) / NM3_PER_UM3),
        **_by_axis("{}0_nm", rows["start"] * size + offset),
        **_by_axis("{}1_nm", rows["stop"] * size + offset),
        **_by_axis("centroid_{}_nm", centroid),
        "mean_semantic_probability": rows["probability_sum"] / voxels / 255.0,
        "surface_um2": surface_nm2(rows["voxels"], pairs, voxel_size_nm) / NM2_PER_UM2,
        "elongation": np.sqrt(largest / second),
        "flatness": np.sqrt(second / smallest),
        "touches_border": touches_border(rows, extent),
    }
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def principal_moments_nm2(rows: Rows, voxel_size_nm: FloatVec3) -> NDArray[np.float64]:
    """Variances of the volume of each instance along its principal axes, (n, 3), ascending, nm^2.

    A voxel is a box, not a point: its own ``size^2 / 12`` is in them, so no instance has a moment of 0. Right as long
    as voxels x length^2 of an instance's bounding box stays below 2^64.
    """
    voxels, start = rows["voxels"], rows["start"]
    products = moved_moments(rows["second_moment"], rows["coordinate_sum"], voxels, -start)
    mean = (rows["coordinate_sum"] - start.astype(np.uint64) * voxels[:, None]) / voxels[:, None]
    moments = np.zeros((len(rows), 3, 3))
    for number, (a, b) in enumerate(PRODUCTS):
        variance = products[:, number] / voxels - mean[:, a] * mean[:, b] + (1 / 12 if a == b else 0.0)
        moments[:, a, b] = moments[:, b, a] = variance * (voxel_size_nm[a] * voxel_size_nm[b])
    return np.linalg.eigvalsh(moments).astype(np.float64, copy=False)


def _by_axis(name: str, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name.format(axis): values[:, number] for number, axis in enumerate(AXES)}
