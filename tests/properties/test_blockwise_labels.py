"""Whatever the block grid, labelling and growing block by block gives the whole volume's result, id for id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, pairwise

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import Rows, fragment_table, merge_rows
from pipeline.instances.ops.grow import dilate, grow, halo
from pipeline.instances.ops.label import Connectivity, label
from pipeline.instances.ops.merge import canonical_ids, large_enough, merge
from pipeline.instances.ops.relabel import compact, relabel
from pipeline.instances.ops.stitch import Rim, forward_offsets, global_pairs, rim, touching_pairs

Labels = NDArray[np.uint64]
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass
class Segmentation:
    """Final ids, the fragments' rows and their table."""

    ids: Labels
    rows: Rows
    table: NDArray[np.uint64]


def blockwise(
    volume: NDArray[np.bool_], block: Vec3, connectivity: Connectivity, minimum: int, semantic: NDArray[np.uint8]
) -> Segmentation:
    """label -> rim -> touching pairs -> merge -> relabel, with nothing passed on but what the stages store."""
    grid = BlockGrid(volume.shape, block)
    labels: list[NDArray[np.uint32]] = []
    rims: list[Rim] = []
    rows: list[Rows] = []
    for each in grid:
        local, n = label(volume[each.core.slices()], connectivity)
        labels.append(local)
        rims.append(Rim.from_arrays(rim(local).to_arrays()))
        rows.append(fragment_table(local, n, each.core, grid.extent, semantic[each.core.slices()]))
    offsets = np.cumsum([0, *map(len, rows)]).tolist()
    fragments = np.concatenate(rows)
    table = merge(len(fragments), stitched(grid, rims, offsets, connectivity), fragments, minimum)
    ids = np.zeros(volume.shape, np.uint64)
    for each, local, (start, stop) in zip(grid, labels, pairwise(offsets), strict=True):
        ids[each.core.slices()] = relabel(local, table[start:stop])
    return Segmentation(ids, fragments, table)


def stitched(grid: BlockGrid, rims: list[Rim], offsets: list[int], connectivity: Connectivity) -> NDArray[np.int64]:
    pairs = [np.zeros((0, 2), np.int64)]
    for each in grid:
        for z, y, x in forward_offsets(connectivity):
            index = (each.index[0] + z, each.index[1] + y, each.index[2] + x)
            if grid.has(index):
                other = grid.number_of(index)
                local = touching_pairs(rims[each.number], rims[other], (z, y, x), connectivity)
                pairs.append(global_pairs(local, offsets[each.number], offsets[other]))
    return np.concatenate(pairs)


def canonical(labels: NDArray[np.unsignedinteger], minimum: int = 0) -> Labels:
    """Number labels by their first voxel, leaving out those below ``minimum`` voxels."""
    values, first, counts = np.unique(labels, return_index=True, return_counts=True)
    kept = sorted((at, value) for at, value, n in zip(first, values, counts, strict=True) if value and n >= minimum)
    result = np.zeros(labels.shape, np.uint64)
    for number, (_, value) in enumerate(kept, 1):
        result[labels == value] = number
    return result


def whole(volume: NDArray[np.bool_], connectivity: Connectivity, minimum: int = 0) -> Labels:
    return canonical(cc3d.connected_components(volume, connectivity=connectivity, binary_image=True), minimum)


def some_semantic(shape: Vec3) -> NDArray[np.uint8]:
    return np.random.default_rng(17).integers(0, 256, shape, dtype=np.uint8)


def block_by_block(
    grid: BlockGrid, halo: Vec3, op: Callable[[tuple[slice, ...]], Labels]
) -> tuple[Labels, list[tuple[NDArray[np.uint32], NDArray[np.uint64]]]]:
    """Apply ``op`` to each core with its halo, cut the core out; the ids, and what a stage would store of them."""
    ids, stored = np.zeros(grid.extent, np.uint64), []
    for each in grid:
        read = each.core.grown(halo).clipped(Box.of_shape(grid.extent))
        core = op(read.slices())[each.core.slices(read.start)]
        ids[each.core.slices()] = core
        stored.append(compact(core))
    return ids, stored


shapes = st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(1, 12))
blocks = st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(1, 12))
densities = st.sampled_from([0.0, 0.03, 0.15, 0.3, 0.5, 0.8, 1.0])


@st.composite
def volumes(draw: st.DrawFn) -> NDArray[np.bool_]:
    shape, seed = draw(shapes), draw(st.integers(0, 2**31))
    return np.random.default_rng(seed).random(shape) < draw(densities)


def spiral(side: int) -> NDArray[np.bool_]:
    """One path that winds to the centre and leaves a gap of one voxel between its turns."""
    plane = np.zeros((side, side), np.bool_)
    y, x = 0, 0
    turns = ((0, 1), (1, 0), (0, -1), (-1, 0))
    plane[0, 0] = True
    lengths = [side - 1, *(n for m in range(side - 1, 0, -2) for n in (m, m))]
    for length, (dy, dx) in zip(lengths, cycle(turns), strict=False):
        for _ in range(length):
            y, x = y + dy, x + dx
            plane[y, x] = True
    return plane


def comb(side: int) -> NDArray[np.bool_]:
    plane = np.zeros((side, side), np.bool_)
    plane[:, ::2] = True
    plane[-1] = True
    return plane


def diagonal(side: int) -> NDArray[np.bool_]:
    at = np.arange(side)
    volume = np.zeros((side, side, side), np.bool_)
    volume[at, at, at] = volume[at, at[::-1], at] = volume[at, at, at[::-1]] = True
    return volume


def hard_volumes() -> dict[str, NDArray[np.bool_]]:
    edge = np.zeros((7, 8, 9), np.bool_)
    edge[3, np.arange(8), np.arange(8)] = True
    return {
        "spiral in z": np.stack([spiral(11)] * 2),
        "spiral in x": np.stack([spiral(11)] * 2, axis=2),
        "comb in y": np.stack([comb(9)] * 3, axis=1),
        "combs of turned sections": np.stack([comb(9), comb(9).T, comb(9)[::-1]]),
        "diagonals over corners": diagonal(9),
        "diagonal over edges": edge,
        "checkerboard": np.indices((6, 7, 8)).sum(axis=0) % 2 == 0,
        "full": np.ones((5, 6, 7), np.bool_),
        "empty": np.zeros((5, 6, 7), np.bool_),
        "one voxel": np.ones((1, 1, 1), np.bool_),
    }


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("block", [(1, 1, 1), (2, 2, 2), (3, 4, 5), (1, 3, 100), (4, 1, 2), (100, 100, 100)])
@pytest.mark.parametrize("name", sorted(hard_volumes()))
def test_hard_shapes_are_labelled_as_in_core(name: str, block: Vec3, connectivity: Connectivity) -> None:
    volume = hard_volumes()[name]
    result = blockwise(volume, block, connectivity, 0, some_semantic(volume.shape))
    assert np.array_equal(result.ids, whole(volume, connectivity))


@EXAMPLES
@given(volumes(), blocks, st.sampled_from(CONNECTIVITIES), st.integers(0, 6))
def test_any_volume_is_labelled_as_in_core(
    volume: NDArray[np.bool_], block: Vec3, connectivity: Connectivity, minimum: int
) -> None:
    result = blockwise(volume, block, connectivity, minimum, some_semantic(volume.shape))
    assert np.array_equal(result.ids, whole(volume, connectivity, minimum))


@EXAMPLES
@given(volumes(), blocks, st.sampled_from(CONNECTIVITIES), st.integers(0, 6))
def test_instance_rows_of_blocks_are_those_of_the_whole(
    volume: NDArray[np.bool_], block: Vec3, connectivity: Connectivity, minimum: int
) -> None:
    semantic = some_semantic(volume.shape)
    result = blockwise(volume, block, connectivity, minimum, semantic)
    in_core = whole(volume, connectivity, minimum)
    n = int(in_core.max(initial=0))
    expected = fragment_table(in_core.astype(np.uint32), n, Box.of_shape(volume.shape), volume.shape, semantic)
    kept = result.table > 0
    found = merge_rows(result.rows[kept], result.table[kept].astype(np.int64) - 1, len(expected))
    assert np.array_equal(found, expected)


@EXAMPLES
@given(volumes(), st.integers(1, 5), st.integers(0, 2**31))
def test_rows_merge_in_any_order_to_the_same(volume: NDArray[np.bool_], n_groups: int, seed: int) -> None:
    labels, n = label(volume, 6)
    rows = fragment_table(labels, n, Box.of_shape(volume.shape), volume.shape)
    group = np.arange(n) % n_groups
    order = np.random.default_rng(seed).permutation(n)
    assert np.array_equal(merge_rows(rows[order], group[order], n_groups), merge_rows(rows, group, n_groups))


@EXAMPLES
@given(volumes(), blocks, st.sampled_from([(1, 7, 7), (1, 5, 5), (3, 3, 1), (1, 1, 1)]), st.integers(0, 2**31))
def test_dilating_with_half_the_box_as_halo_equals_dilating_the_whole(
    volume: NDArray[np.bool_], block: Vec3, size: Vec3, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(1, 9, volume.shape, dtype=np.uint64) * volume
    halo = (size[0] // 2, size[1] // 2, size[2] // 2)
    dilated, _ = block_by_block(BlockGrid(volume.shape, block), halo, lambda at: dilate(labels[at], size))
    assert np.array_equal(dilated, dilate(labels, size))


@EXAMPLES
@given(volumes(), blocks, blocks, st.booleans())
def test_seeds_merged_grown_filtered_and_renumbered_do_not_depend_on_the_grid(
    volume: NDArray[np.bool_], block: Vec3, grown_block: Vec3, published: bool
) -> None:
    semantic = some_semantic(volume.shape)
    mask = volume | (semantic > 100)
    result = blockwise(volume, block, 6, 2, semantic)
    grid = BlockGrid(volume.shape, grown_block)
    reach = (20.0, (20.0, 10.0, 10.0))
    if published:
        grown, stored = block_by_block(grid, (0, 3, 3), lambda at: dilate(result.ids[at]))
        in_core = dilate(whole(volume, 6, 2))
    else:
        grown, stored = block_by_block(grid, halo(*reach), lambda at: grow(result.ids[at], mask[at], *reach))
        in_core = grow(whole(volume, 6, 2), mask, *reach)
    assert np.array_equal(grown, in_core)

    cores = [each.core for each in grid]
    rows = [
        fragment_table(local, len(ids), core, grid.extent) for (local, ids), core in zip(stored, cores, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, rows)]).tolist()
    distinct, group = np.unique(np.concatenate([ids for _, ids in stored]), return_inverse=True)
    every = np.concatenate(rows)
    table = canonical_ids(group, every["first"], large_enough(group, every["voxels"], len(distinct), 9))
    final = np.zeros(volume.shape, np.uint64)
    for (local, _), core, (start, stop) in zip(stored, cores, pairwise(offsets), strict=True):
        final[core.slices()] = relabel(local, table[start:stop])
    assert np.array_equal(final, canonical(in_core, 9))
