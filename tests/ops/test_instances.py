from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.geometry import Box
from pipeline.ops.fragments import FRAGMENT, fragment_table
from pipeline.ops.instances import instance_table

SIZE = (30.0, 8.0, 4.0)
OFFSET = (1000.0, 200.0, -40.0)


def two_instances() -> pa.Table:
    labels = np.zeros((6, 7, 8), np.uint32)
    labels[1:3, 2:4, 3:6] = 1
    labels[5, 6, 6:8] = 2
    semantic = np.where(labels == 1, 255, 51).astype(np.uint8)
    rows = fragment_table(labels, 2, Box.of_shape(labels.shape), labels.shape, semantic)
    return instance_table(rows, labels.shape, SIZE, OFFSET)


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
    table = instance_table(rows, (9, 9, 9), SIZE, OFFSET)
    assert table["touches_border"].to_pylist() == [True, True, True, False]


def test_the_centroid_of_one_voxel_is_its_centre() -> None:
    rows = fragment_table(np.ones((1, 1, 1), np.uint32), 1, Box((2, 3, 4), (3, 4, 5)), (9, 9, 9))
    row = instance_table(rows, (9, 9, 9), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)).to_pylist()[0]
    assert [row[f"centroid_{axis}_nm"] for axis in "zyx"] == [5.0, 7.0, 9.0]


def test_column_types_are_fixed_and_the_same_without_instances() -> None:
    empty = instance_table(np.zeros(0, FRAGMENT), (9, 9, 9), SIZE, OFFSET)
    assert empty.schema == two_instances().schema
    assert len(empty) == 0
    assert empty.schema.field("id").type == pa.uint64()
    assert empty.schema.field("touches_border").type == pa.bool_()


def test_without_probabilities_their_mean_is_null_and_not_zero() -> None:
    rows = fragment_table(np.ones((2, 2, 2), np.uint32), 1, Box.of_shape((2, 2, 2)), (2, 2, 2))
    table = instance_table(rows, (2, 2, 2), SIZE, OFFSET, has_semantic=False)
    assert table.schema == two_instances().schema
    assert table["mean_semantic_probability"].to_pylist() == [None]
