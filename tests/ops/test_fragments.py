from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Vec3
from pipeline.instances.ops.fragments import FRAGMENT, PRODUCTS, Rows, fragment_table, merge_rows, moved_moments, runs
from pipeline.instances.ops.label import label

CORE = Box((10, 20, 30), (16, 29, 41))
EXTENT = (50, 60, 70)


def some_tissue() -> NDArray[np.bool_]:
    return np.random.default_rng(5).random(CORE.shape) < 0.7


def by_definition(
    labels: NDArray[np.uint32],
    n: int,
    core: Box,
    extent: Vec3,
    semantic: NDArray[np.uint8],
    tissue: NDArray[np.bool_] | None = None,
) -> Rows:
    rows = np.zeros(n, FRAGMENT)
    for row, value in zip(rows, range(1, n + 1), strict=True):
        at = np.argwhere(labels == value) + np.array(core.start)
        linear = np.ravel_multi_index(tuple(at.T), extent)
        row["voxels"], row["first"] = len(at), linear.min()
        row["start"], row["stop"], row["coordinate_sum"] = at.min(0), at.max(0) + 1, at.sum(0)
        row["probability_sum"] = semantic[labels == value].astype(np.int64).sum()
        row["second_moment"] = [sum(int(i[a]) * int(i[b]) for i in at) % 2**64 for a, b in PRODUCTS]
        row["inside"] = 0 if tissue is None else np.count_nonzero(tissue[labels == value])
    return rows


def random_block(density: float, seed: int = 0) -> tuple[NDArray[np.uint32], int, NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    labels, n = label(rng.random(CORE.shape) < density, 6)
    return labels, n, rng.integers(0, 256, CORE.shape, dtype=np.uint8)


def test_rows_equal_their_definition_at_every_density() -> None:
    for density in (0.02, 0.1, 0.3, 0.6, 1.0):
        labels, n, semantic = random_block(density)
        expected = by_definition(labels, n, CORE, EXTENT, semantic, some_tissue())
        assert np.array_equal(fragment_table(labels, n, CORE, EXTENT, semantic, some_tissue()), expected)


def test_second_moments_that_wrapped_are_small_and_true_again_at_the_start_of_the_box() -> None:
    labels, n, _ = random_block(0.2)
    core = CORE.shifted((2**40, 10**6, 2**33))  # 2^80 is far beyond 2^64
    rows = fragment_table(labels, n, core, (2**41, 2**21, 2**34))
    voxels = [[i + s for i, s in zip(at, core.start, strict=True)] for at in np.argwhere(labels == 1).tolist()]
    assert rows["second_moment"][0].tolist() == [sum(i[a] * i[b] for i in voxels) % 2**64 for a, b in PRODUCTS]
    moved = moved_moments(rows["second_moment"], rows["coordinate_sum"], rows["voxels"], -rows["start"])
    for value in range(1, n + 1):
        at = np.argwhere(labels == value)
        at -= at.min(0)
        assert moved[value - 1].tolist() == [int((at[:, a] * at[:, b]).sum()) for a, b in PRODUCTS]


def test_rows_do_not_need_labels_in_raster_order() -> None:
    labels, n, semantic = random_block(0.2)
    order = np.concatenate(([0], np.random.default_rng(4).permutation(n) + 1)).astype(np.uint32)
    shuffled = order[labels]
    expected = by_definition(shuffled, n, CORE, EXTENT, semantic)
    assert np.array_equal(fragment_table(shuffled, n, CORE, EXTENT, semantic), expected)


def test_without_a_semantic_map_the_probability_sum_is_zero() -> None:
    labels, n, semantic = random_block(0.2)
    with_map, without = fragment_table(labels, n, CORE, EXTENT, semantic), fragment_table(labels, n, CORE, EXTENT)
    assert not without["probability_sum"].any()
    with_map["probability_sum"] = 0
    assert np.array_equal(with_map, without)


def test_an_empty_block_has_no_rows() -> None:
    rows = fragment_table(np.zeros(CORE.shape, np.uint32), 0, CORE, EXTENT)
    assert rows.dtype == FRAGMENT
    assert len(rows) == 0


def test_the_first_voxel_of_a_petavoxel_extent_keeps_all_64_bits() -> None:
    extent = (2**20, 2**20, 2**20)
    core = Box((2**20 - 2, 2**20 - 1, 2**20 - 2), extent)
    rows = fragment_table(np.array([[[0, 0]], [[0, 1]]], np.uint32), 1, core, extent)
    assert int(rows["first"][0]) == 2**60 - 1
    assert rows["coordinate_sum"][0].tolist() == [2**20 - 1] * 3


def test_bright_runs_to_the_last_voxel_are_summed_in_full() -> None:
    labels = np.ones((3, 2, 40_000), np.uint32)
    semantic = np.full(labels.shape, 255, np.uint8)
    rows = fragment_table(labels, 1, Box.of_shape(labels.shape), labels.shape, semantic)
    assert int(rows["probability_sum"][0]) == 255 * labels.size


def test_a_run_never_crosses_the_end_of_a_row() -> None:
    found = runs(np.array([[[0, 7, 7], [7, 7, 0]]], np.uint32))
    assert found.label.tolist() == [7, 7]
    assert found.start.tolist() == [1, 3]
    assert found.length.tolist() == [2, 2]


def test_merged_rows_are_the_rows_of_the_merged_labels() -> None:
    labels, n, semantic = random_block(0.2)
    group = np.arange(n) % 5
    joined = np.concatenate(([0], group + 1)).astype(np.uint32)[labels]
    merged = merge_rows(fragment_table(labels, n, CORE, EXTENT, semantic, some_tissue()), group, 5)
    assert np.array_equal(merged, by_definition(joined, 5, CORE, EXTENT, semantic, some_tissue()))


def test_sums_beyond_what_a_float_can_hold_are_merged_exactly() -> None:
    rows = np.zeros(3, FRAGMENT)
    rows["coordinate_sum"] = 2**60 + 1
    rows["probability_sum"] = 2**61 + 1
    merged = merge_rows(rows, np.zeros(3, np.int32), 1)
    assert merged["coordinate_sum"][0].tolist() == [3 * (2**60 + 1)] * 3
    assert int(merged["probability_sum"][0]) == 3 * (2**61 + 1)


def test_no_rows_merge_to_no_rows() -> None:
    assert len(merge_rows(np.zeros(0, FRAGMENT), np.zeros(0, np.int64), 0)) == 0
