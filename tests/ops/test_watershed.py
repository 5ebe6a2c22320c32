from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.label import label, seeds
from pipeline.instances.ops.watershed import flood
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.phantom import Phantom


def some_seeds(rng: np.random.Generator, shape: Vec3, inside: NDArray[np.bool_]) -> NDArray[np.uint32]:
    labels = np.zeros(shape, np.uint32)
    chosen = rng.choice(labels.size, min(5, labels.size), replace=False)
    labels.reshape(-1)[chosen] = rng.integers(1, 4, len(chosen))
    return labels * inside


def by_skimage(labels: NDArray[Any], semantic: NDArray[np.uint8], mask_above: int) -> NDArray[Any]:
    image = -semantic.astype(np.float64)
    flooded: NDArray[Any] = watershed(image, labels.astype(np.int32), mask=semantic > mask_above)  # type: ignore[no-untyped-call]
    return flooded


@given(st.integers(0, 2**31), st.sampled_from([(5, 6, 8), (1, 15, 16), (3, 3, 3), (240, 1, 1)]), st.integers(0, 200))
@settings(deadline=None, max_examples=60)
def test_with_no_two_probabilities_equal_it_is_the_watershed_of_skimage(
    seed: int, shape: Vec3, mask_above: int
) -> None:
    rng = np.random.default_rng(seed)
    semantic = rng.permutation(256)[: np.prod(shape)].astype(np.uint8).reshape(shape)
    labels = some_seeds(rng, shape, semantic > mask_above)
    assert np.array_equal(flood(labels, semantic, mask_above), by_skimage(labels, semantic, mask_above))


@given(st.integers(0, 2**31), st.integers(1, 255), st.integers(0, 200))
@settings(deadline=None, max_examples=40)
def test_the_flooded_voxels_are_those_of_skimage_whatever_is_equal(seed: int, levels: int, mask_above: int) -> None:
    rng = np.random.default_rng(seed)
    semantic = (rng.integers(0, levels + 1, (4, 7, 9)) * (255 // levels)).astype(np.uint8)
    labels = some_seeds(rng, (4, 7, 9), semantic > mask_above)
    flooded = flood(labels, semantic, mask_above)
    assert np.array_equal(flooded > 0, by_skimage(labels, semantic, mask_above) > 0)
    assert np.array_equal(flooded[labels > 0], labels[labels > 0])


def test_the_basin_of_higher_probability_takes_what_lies_between() -> None:
    semantic = np.array([[[255, 250, 240, 200, 230, 255]]], np.uint8)
    labels = np.array([[[1, 0, 0, 0, 0, 2]]], np.uint32)
    assert flood(labels, semantic, 0).tolist() == [[[1, 1, 1, 1, 2, 2]]]


def test_on_a_plateau_the_nearer_seed_wins_and_the_smaller_id_where_equally_near() -> None:
    semantic = np.full((1, 1, 6), 240, np.uint8)
    for first, second in ((3, 5), (5, 3)):
        labels = np.zeros((1, 1, 6), np.uint32)
        labels[0, 0, 0], labels[0, 0, 4] = first, second
        assert flood(labels, semantic, 216).tolist() == [[[first, first, min(first, second), second, second, second]]]


def test_a_voxel_at_the_threshold_stays_dry_and_a_seed_outside_the_mask_stays() -> None:
    semantic = np.array([[[217, 217, 216, 255], [10, 0, 0, 0]]], np.uint8)
    labels = np.array([[[1, 0, 0, 0], [2, 0, 0, 0]]], np.uint32)
    assert flood(labels, semantic, 216).tolist() == [[[1, 1, 0, 0], [2, 0, 0, 0]]]


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 4), np.uint32), np.full((2, 3, 4), 5, np.uint32)])
def test_without_seeds_and_without_room_nothing_is_flooded(labels: NDArray[np.uint32]) -> None:
    assert np.array_equal(flood(labels, np.full(labels.shape, 255, np.uint8), 0), labels)


def touching_phantom() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Noisy maps, semantic and boundary, of mitochondria some of which touch."""
    made = Phantom((40, 72, 80), seed=3, voxel_size_nm=(15.0, 15.0, 15.0))
    truth = made.instances(made.box)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(truth.shape), 1.5)
    semantic = np.clip(ndimage.gaussian_filter((truth > 0) * 280.0, 1.5) + 300 * noise, 0, 255).astype(np.uint8)
    rim = ndimage.maximum_filter(truth, 5) != ndimage.minimum_filter(truth, 5)
    return semantic, rim * np.uint8(255)


def test_blocks_with_a_halo_flood_a_phantom_as_the_whole_and_without_one_do_not() -> None:
    semantic, boundary = touching_phantom()
    labels = label(seeds(semantic, boundary, 229, 204), 26)[0]
    whole = flood(labels, semantic, 60)
    assert np.count_nonzero((whole > 0) & (labels == 0)) > 10_000

    def differing(halo: int) -> int:
        found = 0
        for each in BlockGrid(vec3(labels.shape), (20, 36, 20)):
            box = each.core.grown((halo,) * 3).clipped(Box.of_shape(labels.shape))
            here = flood(labels[box.slices()], semantic[box.slices()], 60)[each.core.slices(box.start)]
            found += int(np.count_nonzero(here != whole[each.core.slices()]))
        return found

    assert differing(0) > 0
    assert differing(16) == 0  # 240 nm, and 250 is the default


@given(st.integers(0, 2**31), st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
@settings(deadline=None, max_examples=25)
def test_parts_of_the_mask_flood_as_they_would_alone_wherever_the_array_begins(seed: int, margin: Vec3) -> None:
    rng = np.random.default_rng(seed)
    semantic = rng.choice(np.array([0, 100, 101, 200], np.uint8), (5, 6, 7))
    labels = some_seeds(rng, (5, 6, 7), semantic > 0)
    alone = flood(labels, semantic, 50)
    around = [(m + 1, 2) for m in margin]
    wide_labels, wide = np.pad(labels, around), np.pad(semantic, around)
    wide[0], wide_labels[0, 0, 0] = 150, 9  # another part of the mask, one voxel away
    together = flood(wide_labels, wide, 50)
    assert np.array_equal(together[tuple(slice(a, -b) for a, b in around)], alone)


def test_the_preset_is_the_published_baseline_but_for_ties() -> None:
    semantic, boundary = touching_phantom()
    plan = instance_plan(InstanceSettings(preset="bc_watershed"), (15.0, 15.0, 15.0), None)
    found = whole_instances(semantic, boundary, plan)

    parts, _ = ndimage.label((semantic > int(255 * 0.9)) & (boundary < int(255 * 0.8)), np.ones((3, 3, 3)))
    parts[np.bincount(parts.ravel())[parts] < 32] = 0
    expected = by_skimage(parts, semantic, int(255 * 0.85))
    expected[np.bincount(expected.ravel())[expected] < 128] = 0
    assert len(np.unique(expected)) == found.max() + 1 > 3
    pairs, counts = np.unique(np.stack((found.ravel(), expected.ravel())), axis=1, return_counts=True)
    best = [counts[pairs[0] == one].max() for one in np.unique(found)]
    assert sum(best) > 0.999 * found.size  # one of theirs for each of ours
    assert np.count_nonzero((found > 0) != (expected > 0)) < 20
