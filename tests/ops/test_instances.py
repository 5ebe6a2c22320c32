from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.instances.ops.fragments import FRAGMENT, PRODUCTS, fragment_table
from pipeline.instances.ops.shape import instance_columns, principal_moments_nm2
from pipeline.instances.ops.surface import pairs_within

SIZE = (30.0, 8.0, 4.0)
OFFSET = (1000.0, 200.0, -40.0)


def two_instances() -> pa.Table:
    labels = np.zeros((6, 7, 8), np.uint32)
    labels[1:3, 2:4, 3:6] = 1
    labels[5, 6, 6:8] = 2
    semantic = np.where(labels == 1, 255, 51).astype(np.uint8)
    rows = fragment_table(labels, 2, Box.of_shape(labels.shape), labels.shape, semantic)
    return pa.table(instance_columns(rows, pairs_within(labels, np.arange(1, 3), 2), labels.shape, SIZE, OFFSET))


def no_pairs(n: int) -> NDArray[np.uint64]:
    return np.zeros((n, 13), np.uint64)


def test_a_row_states_size_place_and_confidence_in_physical_units() -> None:
    row = two_instances().to_pylist()[0]
    assert row["id"] == 1
    assert row["voxels"] == 12
    assert row["volume_um3"] == pytest.approx(12 * 30 * 8 * 4 * 1e-9)
    assert [row[f"{axis}0_nm"] for axis in "zyx"] == [1030.0, 216.0, -28.0]
    assert [row[f"{axis}1_nm"] for axis in "zyx"] == [1090.0, 232.0, -16.0]
    assert [row[f"centroid_{axis}_nm"] for axis in "zyx"] == pytest.approx([1060.0, 224.0, -22.0])
    assert row["mean_semantic_probability"] == pytest.approx(1.0)
    assert row["touches_border"] is False


def test_an_instance_at_the_last_voxel_touches_the_border() -> None:
    row = two_instances().to_pylist()[1]
    assert row["id"] == 2
    assert row["mean_semantic_probability"] == pytest.approx(0.2)
    assert row["touches_border"] is True


def test_the_first_plane_of_any_axis_is_a_border() -> None:
    rows = np.zeros(4, FRAGMENT)
    rows["voxels"], rows["start"], rows["stop"] = 1, 1, 2
    for axis in range(3):
        rows["start"][axis, axis] = 0
    rows["coordinate_sum"] = rows["start"]
    rows["second_moment"] = np.stack([rows["start"][:, a] * rows["start"][:, b] for a, b in PRODUCTS], axis=1)
    table = pa.table(instance_columns(rows, no_pairs(4), (9, 9, 9), SIZE, OFFSET))
    assert table["touches_border"].to_pylist() == [True, True, True, False]


def test_the_centroid_of_one_voxel_is_its_centre() -> None:
    rows = fragment_table(np.ones((1, 1, 1), np.uint32), 1, Box((2, 3, 4), (3, 4, 5)), (9, 9, 9))
    row = pa.table(instance_columns(rows, no_pairs(1), (9, 9, 9), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))).to_pylist()[0]
    assert [row[f"centroid_{axis}_nm"] for axis in "zyx"] == [5.0, 7.0, 9.0]


def test_column_types_are_fixed_and_the_same_without_instances() -> None:
    empty = pa.table(instance_columns(np.zeros(0, FRAGMENT), no_pairs(0), (9, 9, 9), SIZE, OFFSET))
    assert empty.schema == two_instances().schema
    assert len(empty) == 0
    assert empty.schema.field("id").type == pa.uint64()
    assert empty.schema.field("touches_border").type == pa.bool_()


def test_principal_moments_are_the_variances_of_the_volume_far_from_the_origin_too() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((7, 9, 12)) < 0.2).astype(np.uint32)
    for start in ((0, 0, 0), (2**33, 10**6, 2**40)):
        core = Box.of_shape(labels.shape).shifted(start)
        found = principal_moments_nm2(fragment_table(labels, 1, core, core.stop), SIZE)
        place = np.argwhere(labels) * np.array(SIZE)
        expected = np.cov(place.T, bias=True) + np.diag(np.square(SIZE)) / 12
        np.testing.assert_allclose(found[0], np.linalg.eigvalsh(expected), rtol=1e-12)


def test_elongation_and_flatness_of_a_box_are_the_ratios_of_its_sides() -> None:
    labels = np.ones((2, 6, 30), np.uint32)  # 60, 48 and 120 nm
    rows = fragment_table(labels, 1, Box.of_shape(labels.shape), labels.shape)
    (row,) = pa.table(instance_columns(rows, no_pairs(1), labels.shape, SIZE, OFFSET)).to_pylist()
    assert row["elongation"] == pytest.approx(120 / 60)
    assert row["flatness"] == pytest.approx(60 / 48)


def test_one_cubic_voxel_is_neither_long_nor_flat() -> None:
    rows = fragment_table(np.ones((1, 1, 1), np.uint32), 1, Box((2, 3, 4), (3, 4, 5)), (9, 9, 9))
    (row,) = pa.table(instance_columns(rows, no_pairs(1), (9, 9, 9), (5.0, 5.0, 5.0), OFFSET, first_id=7)).to_pylist()
    assert (row["id"], row["elongation"], row["flatness"]) == (7, 1.0, 1.0)
    assert row["surface_um2"] == pytest.approx(3 * 5**2 * 1e-6, rel=0.6)
