from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.export.downsample import downsample, mip_factors
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid

AXIS_FACTORS = st.tuples(*[st.integers(1, 3)] * 3)
SHAPES = st.tuples(*[st.integers(1, 7)] * 3)


def cells(array: npt.NDArray[np.generic], factor: Vec3, lead: Vec3) -> dict[Vec3, list[int]]:
    """The voxels of each cell, in z, y, x order: the plain definition."""
    found: dict[Vec3, list[int]] = {}
    for at in product(*map(range, array.shape)):
        z, y, x = ((a + d) // f for a, d, f in zip(at, lead, factor, strict=True))
        found.setdefault((z, y, x), []).append(array[at].item())
    return found


def leads(factor: Vec3, seed: int) -> Vec3:
    z, y, x = (int(np.random.default_rng(seed + axis).integers(0, f)) for axis, f in enumerate(factor))
    return z, y, x


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES, factor=AXIS_FACTORS, seed=st.integers(0, 1000), dtype=st.sampled_from(["uint8", "uint16", "int16"])
)
def test_an_image_is_the_mean_of_each_cell_with_halves_rounded_up(
    shape: Vec3, factor: Vec3, seed: int, dtype: str
) -> None:
    limits = np.iinfo(dtype)
    array = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    lead = leads(factor, seed)
    found = downsample(array, factor, "image", lead)
    assert found.dtype == array.dtype
    for at, values in cells(array, factor, lead).items():
        assert found[at] == (2 * sum(values) + len(values)) // (2 * len(values))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, factor=AXIS_FACTORS, seed=st.integers(0, 1000), labels=st.integers(1, 6))
def test_a_segmentation_is_the_first_most_frequent_label_of_each_cell(
    shape: Vec3, factor: Vec3, seed: int, labels: int
) -> None:
    array = np.random.default_rng(seed).integers(0, labels, shape).astype(np.uint64) * np.uint64(2**60)
    lead = leads(factor, seed)
    found = downsample(array, factor, "segmentation", lead)
    assert found.dtype == np.uint64
    for at, values in cells(array, factor, lead).items():
        assert int(found[at]) == max(values, key=values.count)


def test_a_label_is_never_invented() -> None:
    array = np.random.default_rng(0).choice(np.array([3, 700, 2**40], np.uint64), (9, 9, 9))
    assert set(np.unique(downsample(array, (2, 2, 2), "segmentation"))) <= {3, 700, 2**40}


def test_both_ends_of_uint8_survive_the_mean() -> None:
    for value in (0, 255):
        assert (downsample(np.full((5, 5, 5), value, np.uint8), (2, 2, 2), "image") == value).all()


def test_floats_and_bools_have_means_too() -> None:
    array = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert downsample(array, (2, 2, 2), "image").tolist() == [[[3.5]]]
    assert downsample(array > 3, (2, 2, 2), "image").tolist() == [[[True]]]


def test_64_bit_images_are_refused_because_their_sums_overflow() -> None:
    with pytest.raises(ValueError, match="no exact mean of uint64"):
        downsample(np.ones((2, 2, 2), np.uint64), (2, 2, 2), "image")


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, factor=AXIS_FACTORS, seed=st.integers(0, 1000), kind=st.sampled_from(["image", "segmentation"]))
def test_blockwise_equals_the_whole_volume(shape: Vec3, factor: Vec3, seed: int, kind: str) -> None:
    array = np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8)
    lead = leads(factor, seed)
    whole = downsample(array, factor, kind, lead)  # type: ignore[arg-type]
    for block in BlockGrid(whole.shape, (2, 1, 3)):
        start, stop = block.core.start, block.core.stop
        box = Box(
            tuple(a * f - d for a, f, d in zip(start, factor, lead, strict=True)),  # type: ignore[arg-type]
            tuple(b * f - d for b, f, d in zip(stop, factor, lead, strict=True)),  # type: ignore[arg-type]
        ).clipped(Box.of_shape(shape))
        first = tuple(d if a == 0 else 0 for a, d in zip(start, lead, strict=True))
        part = downsample(array[box.slices()], factor, kind, first)  # type: ignore[arg-type]
        np.testing.assert_array_equal(part, whole[block.core.slices()])


def test_only_the_fine_axes_are_halved_until_voxels_are_near_isotropic() -> None:
    factors = mip_factors((30.0, 8.0, 8.0), (1000, 4000, 4000), (64, 64, 64))
    assert factors == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]


def test_the_pyramid_ends_when_one_chunk_holds_all() -> None:
    assert mip_factors((8.0, 8.0, 8.0), (64, 64, 64), (64, 64, 64)) == []
    assert mip_factors((8.0, 8.0, 8.0), (65, 64, 64), (64, 64, 64)) == [(2, 2, 2)]
    assert len(mip_factors((8.0, 8.0, 8.0), (10**7, 10**7, 10**7), (64, 64, 64))) == 8


def test_an_axis_of_one_voxel_is_never_halved_and_holds_no_other_back() -> None:
    assert mip_factors((4.0, 8.0, 8.0), (1, 256, 256), (64, 64, 64)) == [(1, 2, 2), (1, 2, 2)]
