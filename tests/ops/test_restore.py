"""Restoration in blocks gives the bytes of a slow one of the whole volume, written here a second time; its rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import hypot
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.denoise.ops.gaps import gaps
from pipeline.denoise.ops.restore import Restored, RestoreOp
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.lattice import blending_weights

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

EXTENTS = st.tuples(st.integers(1, 7), st.integers(3, 30), st.integers(3, 34))
BLOCKS = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(2, 20), st.integers(2, 20)), st.sampled_from([(1, 40, 40), (9, 5, 40)])
)


class WholePatch:
    """Every pixel of what it makes depends on every pixel of its patch, on the place in the patch and in the gap."""

    def __init__(self) -> None:
        self.calls = 0

    def restore(self, inputs: Float32, fraction: Float32 | None) -> Float32:
        self.calls += 1
        assert inputs.dtype == np.float32 and 0 <= inputs.min() <= inputs.max() <= 1
        assert (fraction is None) == (inputs.shape[1] == 1)
        places = np.full((len(inputs), *inputs.shape[2:]), 0.3) if fraction is None else fraction
        return np.stack([self._one(*pair) for pair in zip(inputs, places, strict=True)])

    def _one(self, inputs: Float32, fraction: Float32) -> Float32:
        before, after = np.float64(inputs[0]), np.float64(inputs[-1])
        mixed = (1 - fraction) * ndimage.uniform_filter(before, 3) + fraction * after
        ramp = np.linspace(0, 0.2, mixed.size).reshape(mixed.shape)
        return np.asarray(np.clip(0.6 * mixed + 0.3 * before.mean() + 0.2 * after.std() + ramp, 0, 1), np.float32)


def in_blocks(op: RestoreOp, grey: UInt8, damaged: Bool, block: Vec3, network: Any = None) -> Restored:
    """Each block by itself, from the voxels that it asks for alone."""
    restored, replaced = np.zeros_like(grey), np.zeros_like(grey)
    left = np.zeros(len(grey), np.int64)
    for each in BlockGrid(op.extent, block):
        core, near = each.core, op.near(each.core)
        part = op.part(damaged[near.slices()], core)
        restored[core.slices()] = grey[core.slices()]
        read = op.read_box(part)
        if not part.is_empty:
            made = op(grey[read.slices()], damaged[read.slices()], read, part, network or WholePatch())
            restored[part.slices()], replaced[part.slices()] = made.grey, made.replaced
            left[part.slices()[0]] += made.left
    return Restored(restored, replaced, left)


def padding(plane: UInt8) -> Bool:
    """Pixels in a window of 9 x 9 zeros."""
    result = np.zeros(plane.shape, bool)
    for y, x in product(*(range(n - 8) for n in plane.shape)):
        if not plane[y : y + 9, x : x + 9].any():
            result[y : y + 9, x : x + 9] = True
    return result


def column(damaged: Bool, empty: Bool, z: int, max_gap: int) -> tuple[int | None, int | None, bool, bool]:
    """Of one pixel column: the usable slices before and after z, whether z is restorable, whether it is left."""
    below = next((k for k in range(z - 1, z - max_gap - 1, -1) if k < 0 or not damaged[k]), None)
    above = next((k for k in range(z + 1, z + max_gap + 1) if k == len(damaged) or not damaged[k]), None)
    inside = [k is not None and 0 <= k < len(damaged) for k in (below, above)]
    before = below if inside[0] and not empty[below] else None
    after = above if inside[1] and not empty[above] else None
    short = below is not None and above is not None and above - below - 1 <= max_gap
    restorable = bool(damaged[z]) and short and (before is not None or after is not None)
    left = bool(damaged[z]) and not restorable and not (short and any(inside))
    return before, after, restorable, left


def slowly(op: RestoreOp, grey: UInt8, damaged: Bool) -> Restored:
    """The whole volume at once, pixel by pixel."""
    empty = np.stack([padding(plane) for plane in grey])
    restored, replaced, left = grey.copy(), np.zeros_like(grey), np.zeros(len(grey), np.int64)
    for z, plane in enumerate(grey):
        before, after = plane.copy(), plane.copy()
        fraction, known, restorable = np.full(plane.shape, 0.5, np.float32), ~empty[z], damaged[z] & ~empty[z]
        lost = np.zeros(plane.shape, bool)
        for y, x in np.ndindex(*plane.shape) if op.channels == 2 else ():
            a, b, restorable[y, x], lost[y, x] = column(damaged[:, y, x], empty[:, y, x], z, op.max_gap)
            known[y, x] = a is not None or b is not None
            if a is not None and b is not None:
                fraction[y, x] = (z - a) / (b - a)
            for image, k in ((before, b if a is None else a), (after, a if b is None else b)):
                if k is not None:
                    image[y, x] = grey[k, y, x]
        left[z] = lost.sum()
        weight = feathered(op, restorable)
        weight[~known | (damaged[z] & ~restorable) | (empty[z] & ~damaged[z])] = 0
        made = everywhere(op, before, after, fraction)
        mixed = np.floor(weight * made + (np.float32(1) - weight) * plane + np.float32(0.5)).clip(1, 255)
        restored[z] = np.where(weight > 0, mixed, plane)
        replaced[z] = np.where(weight > 0, 255, 0)
    return Restored(restored, replaced, left)


def feathered(op: RestoreOp, restorable: Bool) -> Float32:
    weight = restorable.astype(np.float32)
    for y, x in np.argwhere(~restorable) if op.feather else ():
        rows, columns = np.nonzero(restorable)
        nearest = min(map(hypot, (rows - y) * op.pixel[0], (columns - x) * op.pixel[1]), default=np.inf)
        weight[y, x] = max(0.0, 1 - nearest / op.feather)
    return weight


def everywhere(op: RestoreOp, before: UInt8, after: UInt8, fraction: Float32) -> Float32:
    """Every patch of a slice, blended."""
    sides = [max(n, op.multiple) for n in before.shape]
    patch = [min(p, n // op.multiple * op.multiple) for p, n in zip(op.patch, sides, strict=True)]
    overlap = [min(o, p // 2) for o, p in zip(op.overlap, patch, strict=True)]
    starts = [[*range(0, n - p, p - o), n - p] for n, p, o in zip(sides, patch, overlap, strict=True)]
    pad = [(0, s - n) for s, n in zip(sides, before.shape, strict=True)]
    planes = [np.pad(plane, pad, mode="edge") for plane in (before, after)][: op.channels]
    fraction = np.pad(fraction, pad, mode="edge")
    total, weight = np.zeros(sides, np.float32), np.zeros(sides, np.float32)
    share = blending_weights((1, patch[0], patch[1]), "bump")[0]
    for y, x in product(*starts):
        at = slice(y, y + patch[0]), slice(x, x + patch[1])
        inputs = np.stack([plane[at] for plane in planes])[None].astype(np.float32) / np.float32(255)
        total[at] += share * WholePatch().restore(inputs, fraction[at][None] if op.channels == 2 else None)[0]
        weight[at] += share
    return (total / weight * np.float32(255))[: before.shape[0], : before.shape[1]]


def tissue(rng: np.random.Generator, extent: Vec3) -> UInt8:
    """Noise; at times padding at one side, which moves from slice to slice, windows of it, and an empty slice."""
    grey = rng.integers(0, 256, extent, dtype=np.uint8)
    if rng.random() < 0.5:
        for z, edge in enumerate(rng.integers(0, max(extent[2] - 2, 1), extent[0])):
            grey[z, :, edge:] = 0
    if rng.random() < 0.5:
        for z in range(extent[0]):
            y, x = (rng.integers(0, max(n - 8, 1)) for n in extent[1:])
            grey[z, y : y + 9, x : x + 9] = 0
    if rng.random() < 0.3:
        grey[rng.integers(extent[0])] = 0
    return grey


def damage(rng: np.random.Generator, extent: Vec3, block: Vec3) -> Bool:
    """Specks, boxes at the faces, edges and corners of blocks, whole slices, runs, the first and the last slice."""
    damaged = rng.random(extent) < rng.choice([0.0, 0.002, 0.1])
    corners = [range(b, n, b) or range(1) for b, n in zip(block, extent, strict=True)]
    for corner in list(product(*corners))[: rng.integers(1, 4)]:
        damaged[tuple(slice(max(c - 2, 0), c + rng.integers(1, 4)) for c in corner)] = True
    for _ in range(rng.integers(0, 3)):
        first = rng.choice([0, extent[0] - 1, rng.integers(extent[0])])
        damaged[first : first + rng.integers(1, 5), : rng.choice([extent[1], 5])] = True
    return damaged


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    EXTENTS, BLOCKS, st.sampled_from([1, 2, 2]), st.integers(1, 3), st.sampled_from([0.0, 1.5, 4.0, 9.0]),
    st.sampled_from([(1.0, 1.0), (2.0, 1.0), (1.0, 4.0)]), st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**31),
)  # fmt: skip
def test_blocks_give_the_bytes_of_the_whole_volume(
    extent: Vec3,
    block: Vec3,
    channels: int,
    max_gap: int,
    feather: float,
    pixel: tuple[float, float],
    overlap: int,
    batch: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    op = RestoreOp(extent, (8, 12), (overlap, 3), 4, channels, max_gap, feather, pixel, batch)
    grey, damaged = tissue(rng, extent), damage(rng, extent, block)
    expected = slowly(op, grey, damaged)
    made = in_blocks(op, grey, damaged, block)
    for mine, theirs in zip(made, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    unchanged = made.replaced == 0
    np.testing.assert_array_equal(made.grey[unchanged], grey[unchanged])
    assert made.grey[~unchanged].min(initial=1) > 0


class Mean:
    """The mean of the neighbours at their places in the gap."""

    def restore(self, inputs: Float32, fraction: Float32 | None) -> Float32:
        assert fraction is not None
        return inputs[:, 0] * (1 - fraction) + inputs[:, 1] * fraction


EXTENT = (8, 20, 24)
OP = RestoreOp(EXTENT, (16, 16), (4, 4), 8, 2)


def steps() -> UInt8:
    """Slices of one grey level each: 20, 40, ..."""
    return np.broadcast_to(np.arange(20, 180, 20, dtype=np.uint8)[:, None, None], EXTENT).copy()


def restored(op: RestoreOp, grey: UInt8, damaged: Bool, network: Any = None) -> Restored:
    return in_blocks(op, grey, damaged, op.extent, network or Mean())


@pytest.mark.parametrize("run", [[3], [3, 4], [2, 3, 4]])
def test_a_gap_is_filled_by_the_place_of_each_slice_in_it(run: list[int]) -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    grey[run], damaged[run] = 255, True
    made = restored(OP, grey, damaged)
    np.testing.assert_array_equal(made.grey, steps())
    assert (made.replaced[run] == 255).all() and not made.left.any()


def test_a_gap_longer_than_the_limit_stays_as_it_is_and_is_counted() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    damaged[2:6, 3:9, 4:9] = True
    made = restored(replace(OP, feather=3.0), grey, damaged)
    np.testing.assert_array_equal(made.grey, grey)
    assert not made.replaced.any()
    assert made.left.tolist() == [0, 0, 30, 30, 30, 30, 0, 0]


def test_damage_that_is_not_wanted_stays_and_nothing_is_restored_from_it() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    damaged[3:5] = True
    wanted = damaged.copy()
    wanted[4] = False
    grey[damaged] = 255
    made = OP(grey, damaged, Box.of_shape(EXTENT), Box.of_shape(EXTENT), Mean(), wanted)
    assert (made.grey[3] == 80).all() and (made.replaced[3] == 255).all()  # between slices 2 and 5
    assert (made.grey[4] == 255).all() and not made.replaced[4].any() and not made.left.any()


@pytest.mark.parametrize(("run", "taken"), [([0], 40), ([0, 1], 60), ([7], 140), ([5, 6, 7], 100)])
def test_at_the_ends_of_the_volume_one_side_serves_as_both(run: list[int], taken: int) -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    grey[run], damaged[run] = 3, True
    made = restored(OP, grey, damaged)
    assert (made.grey[run] == taken).all() and not made.left.any()


def test_a_run_at_the_end_of_the_volume_that_is_too_long_is_left() -> None:
    damaged = np.zeros(EXTENT, bool)
    damaged[:4] = True
    assert restored(OP, steps(), damaged).left.tolist() == [480] * 4 + [0] * 4


@pytest.mark.parametrize("slices", [1, 2, 8])
def test_a_volume_that_is_damaged_everywhere_is_left_and_counted(slices: int) -> None:
    op = replace(OP, extent=(slices, 20, 24))
    grey = steps()[:slices]
    made = restored(op, grey, np.ones(op.extent, bool))
    np.testing.assert_array_equal(made.grey, grey)
    assert made.left.tolist() == [480] * slices


def test_pixels_beside_the_damage_take_their_own_neighbours() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    damaged[3, 5:9], damaged[2, 7:9] = True, True
    found = gaps(grey, damaged, np.zeros(EXTENT, bool), 3, 3)
    assert found.before[[0, 5, 7], 0].tolist() == [60, 60, 40]
    assert found.after[[0, 5, 7], 0].tolist() == [100, 100, 100]
    np.testing.assert_allclose(found.fraction[[0, 5, 7], 0], [1 / 2, 1 / 2, 2 / 3])


def test_padding_beside_the_damage_is_not_taken_for_tissue() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    grey[2, :, :12] = 0
    grey[3:5, :10] = 0
    damaged[3, 9:15, :] = True
    made = restored(OP, grey, damaged)
    assert (made.grey[3, 10:15, :12] == 100).all()  # below is padding: the slice above alone
    assert (made.grey[3, 10:15, 12:] == 80).all()
    assert not made.grey[3, 9, :12].any() and not made.replaced[3, 9, :12].any()  # padding on both sides
    assert (made.grey[3, 9, 12:] == 60).all()
    assert not made.left.any()


def test_the_rim_is_blended_and_padding_in_it_stays_zero() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    grey[3] = 180
    grey[3, :, 14:] = 0
    damaged[3, 5:15, 10] = True
    made = restored(replace(OP, feather=4.0), grey, damaged)
    assert made.grey[3, 10, 5:15].tolist() == [180, 180, 155, 130, 105, 80, 105, 130, 155, 0]
    assert made.replaced[3, 10].tolist() == [0] * 7 + [255] * 7 + [0] * 10
    assert not made.replaced[[2, 4]].any()


def test_padding_just_inside_what_a_block_reads_decides_its_rim() -> None:
    extent = (3, 12, 48)
    op = RestoreOp(extent, (8, 8), (0, 0), 4, 2, feather=9.5)
    grey, damaged = np.full(extent, 90, np.uint8), np.zeros(extent, bool)
    damaged[1, :, 24] = True  # 9 pixels from the next block, and the first of 9 pixels of padding
    grey[[0, 2], :, 24:33] = 0
    assert not in_blocks(op, grey, damaged, (3, 12, 16)).replaced.any()
    grey[0, :, 32] = 90
    made = in_blocks(op, grey, damaged, (3, 12, 16))
    assert (made.replaced[1] > 0).any(axis=0).nonzero()[0].tolist() == list(range(15, 34))


def test_the_rim_is_as_wide_in_nanometres_on_both_axes() -> None:
    grey, damaged = steps(), np.zeros(EXTENT, bool)
    damaged[3, 10, 12] = True
    made = restored(replace(OP, feather=24.0, pixel=(4.0, 8.0)), grey, damaged)
    assert (made.replaced[3] > 0).any(axis=1).sum() == 11
    assert (made.replaced[3] > 0).any(axis=0).sum() == 5


def test_black_that_a_network_makes_does_not_become_padding() -> None:
    class Black:
        def restore(self, inputs: Float32, fraction: Float32 | None) -> Float32:
            return np.zeros((len(inputs), *inputs.shape[2:]), np.float32)

    damaged = np.zeros(EXTENT, bool)
    damaged[3] = True
    assert (restored(OP, steps(), damaged, Black()).grey[3] == 1).all()


def test_the_network_runs_only_where_something_is_replaced() -> None:
    damaged, network = np.zeros(EXTENT, bool), WholePatch()
    whole = Box.of_shape(EXTENT)
    assert (OP(steps(), damaged, whole, whole, network).grey == steps()).all()
    assert network.calls == 0
    damaged[3, 0, 0] = damaged[5, 19, 23] = True
    OP(steps(), damaged, whole, whole, network)
    assert network.calls == 2
    damaged[1:5, :, :20] = True  # too long
    OP(steps(), damaged, whole, whole, network)
    assert network.calls == 3


def test_a_block_reads_no_further_than_its_damage_asks() -> None:
    op = replace(OP, extent=(64, 512, 512), max_gap=2, feather=3.0)
    core = Box((0, 0, 0), (32, 256, 256))
    damaged = np.zeros(op.near(core).shape, bool)
    assert op.part(damaged, core).is_empty
    damaged[20, 100:104, 200] = True
    assert op.part(damaged, core) == Box((20, 97, 197), (21, 107, 204))
    assert op.read_box(op.part(damaged, core)) == Box((18, 76, 184), (23, 120, 216))
