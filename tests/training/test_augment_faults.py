"""The limits of each fault's parameters."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.training.augment import AUGMENTATIONS, Augmentation, augmented, window
from pipeline.training.augment.settings import BadSlice, Elastic, Misalignment, MissingSection, Noise, SliceBrightness

PUBLISHED = Augmentation.published()


def settings(name: str, **changes: Any) -> Augmentation:
    base = getattr(PUBLISHED, name)
    return Augmentation.only(**{name: base.model_copy(update={"chance": 1.0, **changes})})


def apply(name: str, raw: Tensor, seed: int, **changes: Any) -> tuple[Tensor, Tensor]:
    return AUGMENTATIONS[name](raw, raw.int(), np.random.default_rng(seed), settings(name, **changes))


def slices(depth: int, size: int = 8) -> Tensor:
    """Each slice holds its own number."""
    return torch.arange(float(depth))[:, None, None].expand(depth, size, size).contiguous()


def place(size: int) -> Tensor:
    """Each voxel of one slice holds y + 1000 x."""
    return torch.arange(float(size))[:, None] + 1000.0 * torch.arange(float(size))[None]


def test_exactly_two_slices_are_lost_and_neither_first_nor_last() -> None:
    crop, lost = (8, 8, 8), set()
    only = Augmentation.only(missing_section=MissingSection(chance=1.0, sections=2))
    assert window(crop, only) == (10, 8, 8)
    for seed in range(60):
        raw, labels = augmented(slices(10), slices(10).int(), crop, np.random.default_rng(seed), only)
        assert torch.equal(raw.int(), labels)
        kept = labels[:, 0, 0].tolist()
        assert kept == sorted(set(kept)) and len(kept) == 8 and kept[0] == 0 and kept[-1] == 9
        lost |= set(range(10)) - set(kept)
    assert lost == set(range(1, 9))


@pytest.mark.parametrize("sections", [1, 2, 3])
def test_the_crop_never_holds_a_repeated_slice(sections: int) -> None:
    only = Augmentation.only(missing_section=MissingSection(chance=0.5, sections=sections))
    depth = window((4, 8, 8), only)[0]
    for seed in range(40):
        labels = augmented(slices(depth), slices(depth).int(), (4, 8, 8), np.random.default_rng(seed), only)[1]
        assert len(labels[:, 0, 0].unique()) == 4


def test_missing_parts_are_bands_of_the_mean_at_most_one_in_three_slices() -> None:
    raw = torch.rand(9, 200, 200, generator=torch.Generator().manual_seed(0))
    touched = set()
    for seed in range(40):
        changed = apply("missing_parts", raw, seed)[0] != raw
        where = changed.flatten(1).any(1).nonzero().flatten().tolist()
        assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(where))
        for z in where:
            touched.add(z)
            assert changed[z].any(0).all() or changed[z].any(1).all()  # from side to side
            assert min(changed[z].sum(0).max(), changed[z].sum(1).max()) <= 81  # the line and 40 to either side
            values = apply("missing_parts", raw, seed)[0][z][changed[z]]
            assert torch.allclose(values, raw[z].mean())
    assert {0, 1, 3, 4, 6, 7} <= touched


def test_a_misaligned_slice_slips_alone_or_with_all_that_follow_and_by_no_more_than_the_limit() -> None:
    raw = place(64).expand(7, 64, 64).contiguous()
    steps, alone, following = set(), 0, 0
    for seed in range(120):
        moved = apply("misalignment", raw, seed, rotation=0.0)[0][:, 32, 32]
        y, x = moved % 1000, (moved / 1000).floor()
        change = torch.stack([y - y[0], x - x[0]]).abs().amax(0)
        assert change.max() <= 16 and max(abs(y[0] - 32), abs(x[0] - 32)) <= 8
        slipped = change.nonzero().flatten().tolist()
        alone += len(slipped) == 1
        following += len(slipped) > 1 and slipped == list(range(slipped[0], 7))
        steps |= {int(step) for step in (y - y[0]).tolist()}
        assert slipped in ([], slipped[:1]) or slipped == list(range(slipped[0], 7))
    assert alone > 25 and following > 25
    assert min(steps) <= -13 and max(steps) >= 13


def test_a_misaligned_slice_turns_by_little_and_its_labels_with_it() -> None:
    raw = torch.zeros(4, 101, 101)
    raw[:, 48:53, 10:91] = 3.0  # a bar from side to side: its ends show the angle
    turned = False
    for seed in range(20):
        grey, labels = apply("misalignment", raw, seed, rotation=1.0)
        ends = [labels[z, :, 12].nonzero().float().mean() for z in range(4)]
        turned |= any(abs(end - 50) > 3 for end in ends)
        assert all(abs(end - 50) <= 8.5 for end in ends)
        assert ((grey > 1.5) == (labels == 3)).float().mean() > 0.995
    assert turned


def test_misalignment_needs_a_second_slice() -> None:
    raw = place(16)[None]
    assert torch.equal(apply("misalignment", raw, 0)[0], raw)
    two = torch.cat([raw, raw])
    assert any(not torch.equal(apply("misalignment", two, seed)[0], two) for seed in range(4))


def test_motion_blur_is_a_box_of_eleven_along_one_axis_of_two_slices() -> None:
    raw = torch.zeros(6, 41, 41)
    raw[:, 20, 20] = 11.0
    directions = set()
    for seed in range(12):
        blurred = apply("motion_blur", raw, seed)[0]
        changed = [z for z in range(6) if not torch.equal(blurred[z], raw[z])]
        assert len(changed) == 2
        for z in changed:
            lines = {"y": blurred[z, :, 20], "x": blurred[z, 20]}
            direction = max(lines, key=lambda axis: int((lines[axis] > 0).sum()))
            directions.add(direction)
            assert torch.allclose(lines[direction][15:26], torch.ones(11), atol=1e-5)
            assert float(blurred[z].sum()) == pytest.approx(11.0, rel=1e-4)
    assert directions == {"y", "x"}


def test_cut_blur_averages_squares_in_a_cuboid_of_two_fifths_of_each_side() -> None:
    raw = torch.rand(10, 50, 60, generator=torch.Generator().manual_seed(0))
    factors = set()
    for seed in range(40):
        blurred = apply("cut_blur", raw, seed)[0]
        where = (blurred != raw).nonzero()
        low, high = where.amin(0).tolist(), (where.amax(0) + 1).tolist()
        assert [stop - start for start, stop in zip(low, high, strict=True)] == [4, 20, 24]
        inside, source = (v[low[0] : high[0], low[1] : high[1], low[2] : high[2]] for v in (blurred, raw))
        factor = next(n for n in range(1, 21) if not torch.equal(inside[0, 0, 0], inside[0, 0, n]))
        factors.add(factor)
        assert torch.allclose(inside[1, :factor, :factor], source[1, :factor, :factor].mean(), atol=1e-5)
    assert factors == set(range(2, 9))


def test_cut_noise_is_uniform_bounded_and_stays_in_its_cuboid() -> None:
    raw = torch.full((10, 50, 60), 0.5)
    noisy = apply("cut_noise", raw, 0)[0]
    changed = noisy != raw
    assert int(changed.sum()) == pytest.approx(4 * 20 * 24, abs=3)
    values = noisy[changed] - 0.5
    assert values.abs().max() <= 0.3 and values.std() == pytest.approx(0.3 / math.sqrt(3), rel=0.05)
    bright = apply("cut_noise", torch.full((4, 20, 20), 0.95), 1)[0]
    assert bright.max() == 1.0


def test_grayscale_stays_within_its_ranges_by_crop_or_by_slice() -> None:
    raw = torch.full((4, 2, 2), 0.5)
    crops = [apply("grayscale", raw, seed)[0][:, 0, 0] for seed in range(300)]
    values = torch.stack(crops)
    # contrast takes 0.5 to 0.425..0.575, brightness to 0.275..0.725, gamma 2 and 1/2 to 0.0756..0.8515
    assert values.min() >= 0.0756 and values.max() <= 0.8515
    assert values.min() < 0.15 and values.max() > 0.75
    by_slice = sum(len(crop.unique()) > 1 for crop in crops)
    assert 110 < by_slice < 190


def test_clipping_cuts_grey_levels_and_without_it_they_keep_their_distance() -> None:
    raw = torch.tensor([-0.4, 0.0, 1.0, 1.4]).reshape(1, 2, 2)
    still = {"contrast": 0.0, "brightness": 0.0, "gamma": 1.0}
    assert apply("grayscale", raw, 1, **still)[0].flatten().tolist() == [0, 0, 1, 1]
    assert torch.allclose(apply("grayscale", raw, 1, **still, clip=False)[0], raw)


def test_elastic_moves_voxels_by_less_than_alpha_and_all_slices_alike() -> None:
    raw = place(80).expand(3, 80, 80).contiguous() / 1000.0
    only = Augmentation.only(elastic=Elastic(chance=1.0, alpha=16.0, sigma=4.0))
    labels = place(80).int().expand(3, 80, 80).contiguous()
    moved = AUGMENTATIONS["elastic"](raw, labels, np.random.default_rng(0), only)[1]
    assert torch.equal(moved[0], moved[2])
    change = torch.stack([moved[0] % 1000 - labels[0] % 1000, moved[0] // 1000 - labels[0] // 1000])
    assert 1 <= change.abs().max() <= 16


def test_flips_and_the_transpose_reach_all_sixteen_orientations() -> None:
    raw = torch.arange(8.0).reshape(2, 2, 2)
    seen = {tuple(apply("flip", raw, seed)[0].flatten().tolist()) for seed in range(200)}
    assert len(seen) == 16


def test_a_crop_that_is_not_square_is_never_transposed() -> None:
    raw = torch.rand(2, 4, 6)
    assert all(apply("flip", raw, seed)[0].shape == raw.shape for seed in range(16))


def test_rescaling_stretches_y_and_x_within_its_factors_and_the_jitter_both_alike() -> None:
    raw = place(101)[None]
    for name, low, high in (("rescale", 0.8, 1.2), ("scale_jitter", 0.7, 1.4)):
        zooms = []
        for seed in range(40):
            base = getattr(Augmentation() if name == "scale_jitter" else PUBLISHED, name)
            only = Augmentation.only(**{name: base.model_copy(update={"chance": 1.0})})
            grey = AUGMENTATIONS[name](raw, raw.int(), np.random.default_rng(seed), only)[0][0].double()
            inner = grey[40:61, 40:61]
            zoom_y = 20 / float(inner[20, 10] - inner[0, 10])
            zoom_x = 20 / float((inner[10, 20] - inner[10, 0]) / 1000)
            zooms.append((zoom_y, zoom_x))
        both = np.array(zooms)
        assert both.min() > low - 0.02 and both.max() < high + 0.02
        assert both.min() < low + 0.1 and both.max() > high - 0.1
        assert (np.abs(both[:, 0] - both[:, 1]).max() < 0.03) == (name == "scale_jitter")


def test_our_own_changes_have_the_strength_they_are_given() -> None:
    raw, random = torch.full((200, 8, 8), 0.5), np.random.default_rng(0)
    levels = AUGMENTATIONS["slice_brightness"](
        raw, raw.int(), random, Augmentation.only(slice_brightness=SliceBrightness(chance=1.0, sigma=0.1))
    )[0]
    assert float(levels[:, 0, 0].std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(levels[:, 0, 0], levels[:, 7, 7])
    only = Augmentation.only(noise=Noise(chance=1.0, most=0.2))
    strong = [float(AUGMENTATIONS["noise"](raw, raw.int(), random, only)[0].std()) for _ in range(40)]
    assert max(strong) <= 0.205 and max(strong) > 0.15 and min(strong) < 0.05


def test_one_bad_slice_loses_its_contrast() -> None:
    raw = torch.rand(5, 30, 30, generator=torch.Generator().manual_seed(0))
    for seed in range(12):
        changed = AUGMENTATIONS["bad_slice"](
            raw, raw.int(), np.random.default_rng(seed), Augmentation.only(bad_slice=BadSlice(chance=1.0))
        )[0]
        bad = [z for z in range(5) if not torch.equal(changed[z], raw[z])]
        assert len(bad) == 1
        assert float(changed[bad[0]].std() / raw[bad[0]].std()) < 0.31


def test_a_misalignment_in_a_crop_is_no_larger_than_its_setting_says() -> None:
    only = Augmentation.only(misalignment=Misalignment(chance=1.0, displacement=5, rotation=0.0, slip=0.0))
    size = window((6, 30, 30), only)
    assert size == (6, 36, 36)
    labels = place(size[1]).int().expand(size).contiguous()
    for seed in range(40):
        moved = augmented(labels.float(), labels, (6, 30, 30), np.random.default_rng(seed), only)[1]
        change = torch.stack([moved % 1000 - moved[:1] % 1000, moved // 1000 - moved[:1] // 1000])
        assert change.abs().max() <= 5
        assert len(moved[0].unique()) == 900  # no voxel is a repeated border
