from __future__ import annotations

import heapq
from collections import deque
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Box, Vec3, float_vec3
from pipeline.instances.ops.fragments import fragment_table
from pipeline.instances.ops.grow import dilate, grow, halo
from pipeline.instances.ops.label import label, seeds
from pipeline.instances.ops.merge import canonical_ids, merge
from pipeline.instances.ops.relabel import compact, relabel
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings

ISOTROPIC = (10.0, 10.0, 10.0)
FACES = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def neighbours(at: Vec3, shape: Vec3) -> list[Vec3]:
    around = [(at[0] + dz, at[1] + dy, at[2] + dx) for dz, dy, dx in FACES]
    return [there for there in around if all(0 <= i < n for i, n in zip(there, shape, strict=True))]


def nearest_seed_through(labels: NDArray[np.uint64], mask: NDArray[np.bool_], steps: int) -> NDArray[np.uint64]:
    """Breadth-first distances from each label on its own; then the nearest label, the smallest where equal."""
    shape = labels.shape
    best: dict[Vec3, tuple[int, int]] = {}
    for value in np.unique(labels[labels > 0]).tolist():
        distance: dict[Vec3, int] = {(int(z), int(y), int(x)): 0 for z, y, x in np.argwhere(labels == value)}
        queue = deque(distance)
        while queue:
            at = queue.popleft()
            for there in neighbours(at, shape):
                if there not in distance and mask[there] and labels[there] == 0 and distance[at] < steps:
                    distance[there] = distance[at] + 1
                    queue.append(there)
        for at, far in distance.items():
            best[at] = min(best.get(at, (far, value)), (far, value))
    grown = labels.copy()
    for at, (_, value) in best.items():
        grown[at] = grown[at] or value
    return grown


def layer_by_layer(labels: NDArray[np.uint64], mask: NDArray[np.bool_], radius: Vec3) -> NDArray[np.uint64]:
    for layer in range(1, max(radius) + 1):
        grown = labels.copy()
        for z, y, x in np.argwhere(mask & (labels == 0)):
            around = [
                there
                for there in neighbours((z, y, x), labels.shape)
                if all(a == b or layer <= r for a, b, r in zip(there, (z, y, x), radius, strict=True))
            ]
            grown[z, y, x] = min((labels[there] for there in around if labels[there]), default=0)
        labels = grown
    return labels


def random_case(seed: int, shape: Vec3 = (5, 8, 9)) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.7
    return rng.integers(1, 6, shape, dtype=np.uint64) * (mask & (rng.random(shape) < 0.05)), mask


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_each_mask_voxel_gets_its_nearest_seed_through_the_mask(seed: int, steps: int) -> None:
    labels, mask = random_case(seed)
    assert np.array_equal(grow(labels, mask, 10.0 * steps, ISOTROPIC), nearest_seed_through(labels, mask, steps))


def by_dijkstra(labels: NDArray[np.uint64], mask: NDArray[np.bool_], reach: int, size: Vec3) -> NDArray[np.uint64]:
    """Shortest paths from all labels at once, nearest first and the smallest label first among equals; whole nm."""
    seeds = [(0, int(labels[at]), at) for z, y, x in np.argwhere(labels > 0).tolist() for at in [(z, y, x)]]
    grown, queue = np.zeros_like(labels), sorted(seeds)
    while queue:
        far, value, at = heapq.heappop(queue)
        if grown[at] or far > reach:
            continue
        grown[at] = value
        for there in neighbours(at, labels.shape):
            if mask[there] and labels[there] == 0 and not grown[there]:
                axis = next(axis for axis in range(3) if there[axis] != at[axis])
                heapq.heappush(queue, (far + size[axis], value, there))
    return grown


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.integers(0, 17),
)
@settings(deadline=None, max_examples=80)
def test_distances_count_each_axis_by_its_voxel_size_and_equal_ones_give_the_smallest_id(
    seed: int, shape: Vec3, size: Vec3, reach: int
) -> None:
    labels, mask = random_case(seed, shape)
    assert np.array_equal(grow(labels, mask, reach, float_vec3(size)), by_dijkstra(labels, mask, reach, size))


def test_one_step_across_sections_is_as_far_as_several_in_plane() -> None:
    labels = np.zeros((3, 5, 5), np.uint64)
    labels[1, 2, 2] = 4
    grown = grow(labels, np.ones(labels.shape, np.bool_), 16.0, (30.0, 8.0, 8.0))
    assert np.count_nonzero(grown[1]) == 13  # two steps in plane
    assert not grown[[0, 2]].any()
    assert np.count_nonzero(grow(labels, np.ones(labels.shape, np.bool_), 38.0, (30.0, 8.0, 8.0))[0]) == 5


@pytest.mark.parametrize(("size", "reach", "steps"), [(0.1, 0.3, 3), (20 / 3, 20.0, 3), (4.04, 4.0, 0), (7.0, 0.0, 0)])
def test_the_reach_is_inclusive_also_where_doubles_fall_short(size: float, reach: float, steps: int) -> None:
    labels = np.zeros((1, 1, 9), np.uint64)
    labels[0, 0, 0] = 1
    grown = grow(labels, np.ones(labels.shape, np.bool_), reach, (size, size, size))
    assert np.count_nonzero(grown) == 1 + steps
    assert halo(reach, (size, size, size)) == (steps, steps, steps)


def test_growth_goes_around_a_gap_in_the_mask_and_not_across_it() -> None:
    mask = np.ones((1, 3, 5), np.bool_)
    mask[0, :2, 2] = False
    labels = np.zeros(mask.shape, np.uint64)
    labels[0, 0, 1] = 1
    assert grow(labels, mask, 50.0, ISOTROPIC)[0, 0, 3] == 0  # two voxels away in a straight line, six through the mask
    assert grow(labels, mask, 60.0, ISOTROPIC)[0, 0, 3] == 1


def test_growth_never_wraps_around_the_volume() -> None:
    labels = np.zeros((3, 4, 5), np.uint64)
    labels[1, 1, 4] = 1
    mask = np.zeros(labels.shape, np.bool_)
    mask[1, 2, 0] = mask[1, 1, 4] = True
    assert np.array_equal(grow(labels, mask, 90.0, ISOTROPIC), labels)


def test_a_tie_goes_to_the_smallest_id_from_every_side() -> None:
    for first, second in ((3, 8), (8, 3)):
        labels = np.zeros((1, 1, 3), np.uint64)
        labels[0, 0, 0], labels[0, 0, 2] = first, second
        assert grow(labels, np.ones(labels.shape, np.bool_), 10.0, ISOTROPIC)[0, 0, 1] == 3


def test_labels_are_never_changed_and_the_input_stays() -> None:
    labels, mask = random_case(11)
    before = labels.copy()
    grown = grow(labels, mask, 30.0, ISOTROPIC)
    assert np.array_equal(labels, before)
    assert np.array_equal(grown[labels > 0], labels[labels > 0])
    assert not grown[~mask & (labels == 0)].any()
    assert grown.dtype == labels.dtype


def test_no_labels_and_no_mask_grow_nothing() -> None:
    empty = np.zeros((2, 3, 4), np.uint64)
    assert not grow(empty, np.ones(empty.shape, np.bool_), 20.0, ISOTROPIC).any()
    full = np.full((2, 3, 4), 5, np.uint64)
    assert np.array_equal(grow(full, np.zeros(full.shape, np.bool_), 20.0, ISOTROPIC), full)


def greatest_around(labels: NDArray[Any], size: Vec3) -> NDArray[Any]:
    half = [length // 2 for length in size]
    widest = np.zeros_like(labels)
    for z, y, x in np.ndindex(labels.shape):
        box = tuple(slice(max(0, at - h), at + h + 1) for at, h in zip((z, y, x), half, strict=True))
        widest[z, y, x] = labels[box].max()
    return widest


@pytest.mark.parametrize("size", [(1, 7, 7), (1, 5, 5), (3, 1, 9), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_dilation_takes_the_greatest_label_in_the_box(size: Vec3, dtype: type[np.unsignedinteger[Any]]) -> None:
    labels = random_case(12)[0].astype(dtype)
    dilated = dilate(labels, size)
    assert dilated.dtype == dtype
    assert np.array_equal(dilated, greatest_around(labels, size))


def test_dilation_overwrites_a_lower_neighbour() -> None:
    labels = np.array([[[1, 1, 1, 1, 2, 2]]], np.uint64)
    assert dilate(labels).tolist() == [[[1, 2, 2, 2, 2, 2]]]


def published_by_definition(semantic: NDArray[np.uint8], boundary: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Seeds, 6-connected parts by flooding, single voxels out, 7 x 7 maximum, parts below 128 voxels out."""
    inside = np.argwhere((semantic > int(255 * 0.9)) & (boundary < int(255 * 0.8)))
    foreground: set[Vec3] = {(z, y, x) for z, y, x in inside.tolist()}
    labels, count = np.zeros(semantic.shape, np.uint64), 0
    for start in sorted(foreground):
        if labels[start]:
            continue
        part, queue = {start}, [start]
        while queue:
            fresh = [at for at in neighbours(queue.pop(), semantic.shape) if at in foreground and at not in part]
            part.update(fresh)
            queue.extend(fresh)
        if len(part) > 1:
            count += 1
            labels[tuple(np.array(sorted(part)).T)] = count
        else:
            foreground.discard(start)
    dilated = greatest_around(labels, (1, 7, 7))
    values, first, sizes = np.unique(dilated, return_index=True, return_counts=True)
    kept = sorted((at, value) for at, value, n in zip(first, values, sizes, strict=True) if value and n >= 128)
    canonical = np.zeros(semantic.shape, np.uint64)
    for number, (_, value) in enumerate(kept, 1):
        canonical[dilated == value] = number
    return canonical


@pytest.mark.parametrize("seed", range(3))
def test_the_published_postprocessing_composes_from_the_ops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (6, 40, 44)
    semantic = rng.integers(200, 256, shape, dtype=np.uint8)
    semantic[rng.random(shape) < 0.8] = 0
    for z, y, x in product((0, 3), (4, 24), (6, 26)):
        semantic[z : z + 2, y : y + 9, x : x + 7] = 230
    boundary = rng.integers(0, 210, shape, dtype=np.uint8)
    box = Box.of_shape(shape)

    labels, n = label(seeds(semantic, boundary, 229, 204), 6)
    no_pairs = np.zeros((0, 2), np.int64)
    table = merge(n, no_pairs, fragment_table(labels, n, box, shape), minimum_voxels=2)
    local, ids = compact(dilate(relabel(labels, table), (1, 7, 7)))
    rows = fragment_table(local, len(ids), box, shape)
    final = relabel(local, canonical_ids(np.arange(len(ids)), rows["first"], rows["voxels"] >= 128))

    expected = published_by_definition(semantic, boundary)
    assert expected.max() > 3
    assert np.array_equal(final, expected)
    preset = instance_plan(InstanceSettings(preset="published"), (30.0, 8.0, 8.0), None)
    assert np.array_equal(whole_instances(semantic, boundary, preset), expected)
