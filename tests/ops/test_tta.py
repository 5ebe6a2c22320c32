"""Test-time augmentation: every voxel comes back to its place, and the mean is the mean."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.image.quantise import quantised
from pipeline.predict.op import Input, PredictOp
from pipeline.predict.tta import CHOICES, Tta, Variant, mean_probability, variants

Float32 = NDArray[np.float32]
AUGMENTED: list[Tta] = [4, 8, 16]


def normalise(grey: NDArray[np.uint8]) -> Float32:
    return (grey / np.float32(255)).astype(np.float32)


def inverted(grey: NDArray[np.uint8]) -> Float32:
    return np.float32(1) - normalise(grey)


def two_maps(semantic: Float32) -> Float32:
    return np.concatenate([semantic, 1 - semantic / 2], 1).astype(np.float32)


class Symmetric:
    """A blur over the six neighbours: it does the same to a mirrored patch as to the patch."""

    def predict(self, patches: Float32) -> Float32:
        padded = np.pad(patches, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)), mode="edge").astype(np.float64)
        middle = slice(1, -1)
        moved = [(slice(None), slice(None), *at) for at in _neighbours(middle)]
        return two_maps(np.round(sum(padded[at] for at in moved) / 6, 4))


def _neighbours(middle: slice) -> list[tuple[slice, slice, slice]]:
    low, high = slice(None, -2), slice(2, None)
    return [
        (low, middle, middle), (high, middle, middle), (middle, low, middle), (middle, high, middle),
        (middle, middle, low), (middle, middle, high),
    ]  # fmt: skip


class Lopsided:
    """Each direction treated in a way of its own, and the whole patch at every voxel."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def predict(self, patches: Float32) -> Float32:
        self.seen.append(patches.shape)
        _, _, depth, height, width = patches.shape
        z, y, x = np.meshgrid(np.arange(depth), np.arange(height), np.arange(width), indexing="ij")
        ramp = ((z * 3 + y * 5 + x * 7) % 11 / 11).astype(np.float32)
        smeared = (patches + np.roll(patches, 1, 3) + np.roll(patches, 2, 4)) / 3
        return two_maps((smeared * ramp + patches.mean(axis=(2, 3, 4), keepdims=True)) / 2)


def volume(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def maps(op: PredictOp, raw: NDArray[np.uint8], inputs: list[Input], block: tuple[int, int, int] | None = None) -> Any:
    found = np.zeros((2, *raw.shape), np.uint8)
    for piece in BlockGrid(raw.shape, block or raw.shape):
        read = op.read_box(piece.core)
        semantic, boundary, _ = op.averaged(raw[read.slices()], read, piece.core, inputs)
        found[(0, *piece.core.slices())], found[(1, *piece.core.slices())] = semantic, boundary
    return found


@pytest.mark.parametrize("tta", CHOICES)
def test_there_are_as_many_variants_as_asked_for_all_different_and_the_patch_itself_is_first(tta: Tta) -> None:
    found = variants(tta)
    assert found[0] == Variant()
    assert len(found) == max(1, tta)
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert len({variant.applied(cube).tobytes() for variant in found}) == len(found)


@pytest.mark.parametrize("variant", variants(16))
def test_a_variant_is_undone_voxel_by_voxel(variant: Variant) -> None:
    patches = np.random.default_rng(1).random((2, 1, 3, 4, 6), np.float32)
    seen = variant.applied(patches)
    assert seen.shape[-2:] == ((6, 4) if variant.transposed else (4, 6))
    assert seen.flags.c_contiguous
    np.testing.assert_array_equal(variant.undone(seen), patches)


@pytest.mark.parametrize("tta", AUGMENTED)
def test_one_variant_after_another_is_a_third_of_the_same_choice(tta: Tta) -> None:
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    known = {variant.applied(cube).tobytes() for variant in variants(tta)}
    for first, second in product(variants(tta), repeat=2):
        assert second.applied(first.applied(cube)).tobytes() in known


def test_the_choices_mirror_and_swap_the_axes_they_say() -> None:
    assert [(v.flips[0], v.transposed) for v in variants(4)] == list(product([False, True], repeat=2))
    assert not any(v.flips[1] or v.flips[2] for v in variants(4))
    assert not any(v.flips[0] for v in variants(8))
    assert {*variants(4), *variants(8)} < {*variants(16)}
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(Variant((True, False, False)).applied(cube), cube[::-1])
    np.testing.assert_array_equal(Variant((False, True, False), True).applied(cube), cube[:, ::-1].transpose(0, 2, 1))


@pytest.mark.parametrize("tta", AUGMENTED)
def test_a_network_that_does_not_mind_mirrors_gives_the_same_map(tta: Tta) -> None:
    raw = volume((7, 30, 38))
    plain, augmented = (PredictOp(raw.shape, (1, 1, 1), (4, 16, 16), (1, 4, 6), "bump", 1, t) for t in (0, tta))
    inputs = [Input(normalise, Symmetric())]
    np.testing.assert_array_equal(maps(augmented, raw, inputs), maps(plain, raw, inputs))


@pytest.mark.parametrize("tta", AUGMENTED)
def test_the_map_of_one_patch_is_the_mean_worked_out_by_hand(tta: Tta) -> None:
    raw = volume((5, 16, 16))
    x, network = normalise(raw)[None, None], Lopsided()
    answers = []
    for z in (1, -1) if tta in (4, 16) else (1,):
        for y in (1, -1) if tta in (8, 16) else (1,):
            for w in (1, -1) if tta in (8, 16) else (1,):
                turned = x[:, :, ::z, ::y, ::w]
                answers.append(network.predict(turned)[:, :, ::z, ::y, ::w])
                swapped = network.predict(turned.transpose(0, 1, 2, 4, 3)).transpose(0, 1, 2, 4, 3)
                answers.append(swapped[:, :, ::z, ::y, ::w])
    assert len(answers) == tta
    expected = np.mean(np.array(answers, np.float64), axis=0)[0]
    op = PredictOp(raw.shape, (1, 1, 1), (5, 16, 16), (0, 0, 0), "bump", 1, tta)
    found = maps(op, raw, [Input(normalise, Lopsided())])
    assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-6
    without = PredictOp(raw.shape, (1, 1, 1), (5, 16, 16), (0, 0, 0), "bump")
    assert (found != maps(without, raw, [Input(normalise, Lopsided())])).mean() > 0.5


def test_several_networks_are_averaged_each_with_its_own_input() -> None:
    raw = volume((4, 16, 16))
    op = PredictOp(raw.shape, (1, 1, 1), (4, 16, 16), (0, 0, 0), "bump")
    found = maps(op, raw, [Input(normalise, Lopsided()), Input(inverted, Lopsided()), Input(normalise, Symmetric())])
    each = [
        network.predict(rule(raw)[None, None])[0]
        for rule, network in ((normalise, Lopsided()), (inverted, Lopsided()), (normalise, Symmetric()))
    ]
    np.testing.assert_array_equal(found, quantised((each[0] + each[1] + each[2]) / np.float32(3)))


@pytest.mark.parametrize("block", [(3, 17, 22), (9, 12, 44)])
@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2)])
def test_blocks_do_not_show_with_sixteen_variants_of_two_networks(
    block: tuple[int, int, int], scale: tuple[int, int, int]
) -> None:
    raw = volume((9, 36, 44))
    raw[2:6, 10:30, 5:25] = 0
    op = PredictOp(raw.shape, scale, (4, 16, 16), (1, 4, 6), "bump", 1, 16)
    inputs = [Input(normalise, Lopsided()), Input(inverted, Symmetric())]
    np.testing.assert_array_equal(maps(op, raw, inputs, block), maps(op, raw, inputs))


@pytest.mark.parametrize("batch", [2, 5])
def test_a_batch_of_any_size_gives_the_same_mean(batch: int) -> None:
    raw = volume((6, 30, 30))
    one, more = (PredictOp(raw.shape, (1, 1, 1), (4, 16, 16), (1, 4, 6), "bump", size, 8) for size in (1, batch))
    inputs = [Input(normalise, Lopsided()), Input(inverted, Lopsided())]
    np.testing.assert_array_equal(maps(one, raw, inputs), maps(more, raw, inputs))


def test_a_patch_that_is_not_square_is_seen_in_both_shapes() -> None:
    raw, network = volume((4, 16, 32)), Lopsided()
    op = PredictOp(raw.shape, (1, 1, 1), (4, 16, 32), (0, 0, 0), "bump", 1, 4)
    maps(op, raw, [Input(normalise, network)])
    assert network.seen == [(1, 1, 4, 16, 32), (1, 1, 4, 32, 16)] * 2


def test_the_mean_is_summed_network_by_network_and_the_patch_as_it_is_comes_first() -> None:
    order: list[tuple[str, float]] = []

    def network(name: str) -> Any:
        def predict(patches: Float32) -> Float32:
            order.append((name, float(patches.flat[0])))
            return two_maps(patches)

        return predict

    patches = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 2, 2)
    found = mean_probability([(network("a"), patches), (network("b"), patches * 10)], variants(4))
    assert order == [("a", 0), ("a", 0), ("a", 4), ("a", 4), ("b", 0), ("b", 0), ("b", 40), ("b", 40)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :1], patches * 5.5)


def test_the_answer_of_a_network_is_left_as_it_is() -> None:
    kept = np.full((1, 2, 2, 4, 4), 0.25, np.float32)
    mean_probability([(lambda _patches: kept, kept[:, :1])], variants(16))
    assert (kept == 0.25).all()


def test_empty_patches_are_not_computed_in_any_variant() -> None:
    raw, network = np.zeros((4, 32, 64), np.uint8), Lopsided()
    raw[:, :, :20] = 90
    op = PredictOp(raw.shape, (1, 1, 1), (4, 32, 32), (0, 0, 0), "crop", 1, 8)
    box = Box.of_shape(raw.shape)
    *_, computed = op.averaged(raw, box, box, [Input(normalise, network)])
    assert computed == 1
    assert len(network.seen) == 8
