"""Growth and hole filling in blocks with a halo give what the whole volume gives, for any block and voxel size."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Box, Vec3, float_vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.grow import grow, halo
from pipeline.instances.ops.growth import filled, grown, growth_halo, holes_halo
from pipeline.instances.ops.holes import fill_holes
from pipeline.instances.plan import InstancePlan

Labels = NDArray[np.uint32]
EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 13))
BLOCKS = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 8)),
    st.sampled_from([(1, 1, 1), (1, 40, 2), (40, 40, 40)]),
)
SIZES = st.tuples(st.sampled_from([4, 5, 30]), st.sampled_from([4, 8]), st.sampled_from([4, 7, 8]))
SOME = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
LARGEST = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


def blocks_with_halo(shape: tuple[int, ...], block: Vec3, around: Vec3, op: Any) -> Labels:
    """What ``op`` makes of each block read with its halo: ``op(slices) -> labels`` of the box that was read."""
    grid = BlockGrid((shape[0], shape[1], shape[2]), block)
    result = np.zeros(shape, np.uint32)
    for each in grid:
        box = each.core.grown(around).clipped(Box.of_shape(shape))
        result[each.core.slices()] = op(box.slices())[each.core.slices(box.start)]
    return result


def sparse(rng: np.random.Generator, shape: Vec3, share: float) -> Labels:
    return rng.integers(1, 7, shape, dtype=np.uint32) * (rng.random(shape) < share)


def leaky(rng: np.random.Generator, shape: Vec3) -> Labels:
    """A few large instances full of holes, some of which are open or between two instances."""
    coarse = rng.integers(0, 4, [-(-n // 4) for n in shape], dtype=np.uint32)
    labels = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: shape[0], : shape[1], : shape[2]].copy()
    labels[rng.random(shape) < rng.uniform(0.02, 0.5)] = 0
    return labels


@EXAMPLES
@given(SHAPES, BLOCKS, SIZES, st.integers(0, 40), st.floats(0.3, 1.0), st.integers(0, 2**31))
def test_growth_does_not_depend_on_the_blocks(
    shape: Vec3, block: Vec3, size: Vec3, reach: int, share: float, seed: int
) -> None:
    rng, nm = np.random.default_rng(seed), float_vec3(size)
    labels, mask = sparse(rng, shape, 0.06), rng.random(shape) < share
    result = blocks_with_halo(shape, block, halo(reach, nm), lambda at: grow(labels[at], mask[at], reach, nm))
    assert np.array_equal(result, grow(labels, mask, reach, nm))


@EXAMPLES
@given(SHAPES, BLOCKS, LARGEST, st.integers(0, 2**31))
def test_filled_holes_do_not_depend_on_the_blocks(shape: Vec3, block: Vec3, largest: Vec3, seed: int) -> None:
    labels = leaky(np.random.default_rng(seed), shape)
    result = blocks_with_halo(shape, block, largest, lambda at: fill_holes(np.ascontiguousarray(labels[at]), largest))
    assert np.array_equal(result, fill_holes(labels, largest))


@EXAMPLES
@given(SHAPES, BLOCKS, SIZES, SOME, st.sampled_from(["mask", "dilate", "none"]), st.integers(0, 2**31))
def test_growth_and_then_holes_do_not_depend_on_the_blocks(
    shape: Vec3, block: Vec3, size: Vec3, largest: Vec3, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    few = leaky(rng, shape) if kind == "none" else sparse(rng, shape, 0.1)
    labels, semantic = np.minimum(few, np.uint32(2)), rng.integers(0, 256, shape, dtype=np.uint8)
    plan = InstancePlan(
        200, 200, grow=kind, mask_above=40, grow_nm=40.0, voxel_size_nm=float_vec3(size), fill_holes=largest
    )
    around_holes, around_growth = holes_halo(plan), growth_halo(plan)

    def one(core: Box) -> Labels:
        extent = Box.of_shape(shape)
        seen = core.grown(around_holes).clipped(extent)
        box = seen.grown(around_growth).clipped(extent)
        whole = grown(labels[box.slices()], semantic[box.slices()], plan)[seen.slices(box.start)]
        return filled(whole, plan)[core.slices(seen.start)]

    result = np.zeros(shape, np.uint32)
    for each in BlockGrid(shape, block):
        result[each.core.slices()] = one(each.core)
    assert np.array_equal(result, filled(grown(labels, semantic, plan), plan))
