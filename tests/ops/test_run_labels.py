"""Labels made from runs are those that cc3d finds voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Vec3, vec3
from pipeline.instances.ops.fragments import painted, run_starts, runs
from pipeline.instances.ops.label import Connectivity, label
from pipeline.instances.ops.run_labels import FEW, label_runs

CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 40))


def require_same(seeds: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]], connectivity: Connectivity) -> None:
    expected, n = label(seeds, connectivity)
    found, count = label_runs(seeds, connectivity)
    assert count == n
    assert found.label.dtype == np.min_scalar_type(n)
    np.testing.assert_array_equal(painted(found, found.label, vec3(seeds.shape)), expected)
    for ours, theirs in zip(found, runs(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(shapes, st.floats(0, 1), st.sampled_from(CONNECTIVITIES), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_runs_are_joined_as_their_voxels_are(
    shape: Vec3, density: float, connectivity: Connectivity, number: int
) -> None:
    rng = np.random.default_rng(number)
    require_same(rng.random(shape) < density, connectivity)


@given(st.lists(st.tuples(*(st.integers(0, 11),) * 3), max_size=17), st.sampled_from(CONNECTIVITIES))
@settings(max_examples=200, deadline=None)
def test_few_runs_are_joined_without_cc3d(voxels: list[Vec3], connectivity: Connectivity) -> None:
    seeds = np.zeros((12, 12, 12), np.bool_)
    for z, y, x in voxels:
        seeds[z, y, x : x + 5] = True
    assert len(runs(seeds.view(np.uint8)).start) <= FEW * seeds.size
    require_same(seeds, connectivity)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_neither_the_end_of_a_row_nor_that_of_a_plane_joins_runs(connectivity: Connectivity) -> None:
    seeds = np.zeros((3, 8, 16), np.bool_)
    seeds[0, 0, -1] = seeds[0, 1, 0] = seeds[0, -1, -3:] = seeds[1, 0, :3] = seeds[2, 0, 0] = True
    require_same(seeds, connectivity)


def test_more_than_255_components_take_two_bytes() -> None:
    seeds = np.zeros((64, 64, 64), np.bool_)
    seeds[::4, ::4, ::8] = True
    assert label_runs(seeds, 26)[1] == 16 * 16 * 8
    require_same(seeds, 26)


def test_an_empty_block_has_no_runs() -> None:
    found, n = label_runs(np.zeros((4, 5, 6), np.bool_), 6)
    assert (n, len(found.start)) == (0, 0)
    assert not painted(found, found.label, (4, 5, 6)).any()


def test_seeds_need_not_be_contiguous() -> None:
    seeds = np.random.default_rng(0).random((40, 30, 20)).transpose(2, 1, 0) < 0.02
    require_same(seeds, 18)


@given(shapes, st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_painting_runs_gives_the_array_back(shape: Vec3, number: int) -> None:
    labels = np.random.default_rng(number).integers(0, 3, shape, np.uint32)
    found = runs(labels)
    np.testing.assert_array_equal(painted(found, found.label, shape), labels)


def test_a_run_of_zeros_goes_on_over_the_end_of_a_row_and_one_of_labels_does_not() -> None:
    assert run_starts(np.array([[[0, 0], [0, 0], [7, 7], [7, 0]]])).tolist() == [0, 4, 6, 7]
