from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Vec3
from pipeline.instances.ops.holes import fill_holes

ALL: Vec3 = (99, 99, 99)


def by_definition(labels: NDArray[Any], largest: Vec3) -> NDArray[Any]:
    """Each component of background by scipy: its box, whether it is at the rim, and the labels around it."""
    components, _ = ndimage.label(labels == 0)
    filled = labels.copy()
    for number, box in enumerate(ndimage.find_objects(components), 1):
        inside = components == number
        around = set(labels[ndimage.binary_dilation(inside) & ~inside].tolist())
        rim = any(s.start == 0 or s.stop == n for s, n in zip(box, labels.shape, strict=True))
        fits = all(s.stop - s.start <= most for s, most in zip(box, largest, strict=True))
        if fits and not rim and len(around) == 1:
            filled[inside] = around.pop()
    return filled


def ball_with_a_hole() -> NDArray[np.uint32]:
    labels = np.zeros((9, 9, 9), np.uint32)
    labels[1:8, 1:8, 1:8] = 7
    labels[3:5, 3:6, 3:7] = 0  # 2 x 3 x 4 voxels
    return labels


def test_a_hole_takes_the_label_around_it_and_the_input_stays() -> None:
    labels = ball_with_a_hole()
    filled = fill_holes(labels, (2, 3, 4))
    assert (filled[1:8, 1:8, 1:8] == 7).all()
    assert np.count_nonzero(filled) == 7**3
    assert np.count_nonzero(labels) == 7**3 - 24
    assert filled.dtype == np.uint32


@pytest.mark.parametrize("largest", [(1, 3, 4), (2, 2, 4), (2, 3, 3), (0, 0, 0), (0, 99, 99)])
def test_a_hole_longer_than_allowed_on_one_axis_stays(largest: Vec3) -> None:
    labels = ball_with_a_hole()
    assert np.array_equal(fill_holes(labels, largest), labels)


def test_a_hole_that_touches_a_second_instance_stays() -> None:
    labels = ball_with_a_hole()
    labels[4, 4, 4] = 9  # an island of another instance inside the hole
    assert np.array_equal(fill_holes(labels, ALL), labels)
    labels[4, 4, 4] = 7  # of the same one
    assert (fill_holes(labels, ALL)[1:8, 1:8, 1:8] == 7).all()


def test_a_hole_inside_an_island_is_filled_with_the_island() -> None:
    labels = np.zeros((13, 13, 13), np.uint32)
    labels[1:12, 1:12, 1:12] = 1
    labels[2:11, 2:11, 2:11] = 0
    labels[4:9, 4:9, 4:9] = 2
    labels[6, 6, 6] = 0
    filled = fill_holes(labels, ALL)
    assert filled[6, 6, 6] == 2
    assert filled[3, 3, 3] == 0  # between the two


def test_background_open_to_the_rim_over_a_face_stays_and_over_a_corner_is_a_hole() -> None:
    labels = np.full((3, 3, 3), 4, np.uint32)
    labels[1, 1, 1] = labels[0, 0, 0] = 0  # the corner voxel touches the middle one over no face
    filled = fill_holes(labels, ALL)
    assert (filled[1, 1, 1], filled[0, 0, 0]) == (4, 0)
    labels[0, 1, 1] = 0
    assert fill_holes(labels, ALL)[1, 1, 1] == 0


def test_nothing_and_everything_have_no_holes() -> None:
    for value in (0, 3):
        labels = np.full((4, 5, 6), value, np.uint32)
        assert np.array_equal(fill_holes(labels, ALL), labels)


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 8)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=80)
def test_holes_are_those_of_the_definition(seed: int, shape: Vec3, largest: Vec3, ids: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, ids + 1, shape, dtype=np.uint32) * (rng.random(shape) < rng.uniform(0.4, 0.98))
    assert np.array_equal(fill_holes(labels, largest), by_definition(labels, largest))


@pytest.mark.parametrize("seed", range(5))
def test_holes_of_one_object_are_those_that_scipy_fills(seed: int) -> None:
    labels = (np.random.default_rng(seed).random((8, 9, 10)) < 0.75).astype(np.uint32)
    assert np.array_equal(fill_holes(labels, ALL) > 0, ndimage.binary_fill_holes(labels))
