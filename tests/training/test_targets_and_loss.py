from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipeline.training.segmentation.loss import Loss, dice_loss, loss, weighted_bce
from pipeline.training.segmentation.targets import boundary, targets, with_gaps


def square(size: int = 20, start: int = 6, stop: int = 14, label: int = 7) -> Tensor:
    instances = torch.zeros(1, size, size, dtype=torch.int32)
    instances[:, start:stop, start:stop] = label
    return instances


def test_the_boundary_is_two_voxels_inside_and_two_outside_an_object() -> None:
    line = boundary(square())[0, 10].int().tolist()
    assert line == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4


def test_the_boundary_is_found_slice_by_slice() -> None:
    instances = torch.cat([square(), torch.zeros(1, 20, 20, dtype=torch.int32), square()])
    edges = boundary(instances)
    assert not edges[1].any()
    assert torch.equal(edges[0], edges[2])


def test_an_object_that_leaves_the_slice_has_no_boundary_there() -> None:
    instances = torch.ones(1, 12, 12, dtype=torch.int32)
    instances[:, :, 6:] = 0
    line = boundary(instances)[0, 0].int().tolist()
    assert line == [0] * 4 + [1] * 4 + [0] * 4


def test_touching_objects_part_by_two_voxels_and_their_boundary_is_six_thick() -> None:
    instances = torch.ones(1, 16, 16, dtype=torch.int32)
    instances[:, :, 8:] = 2
    mask, edge = targets(instances)
    assert mask[0, 8].int().tolist() == [1] * 7 + [0] * 2 + [1] * 7
    assert edge[0, 8].int().tolist() == [0] * 5 + [1] * 6 + [0] * 5


def test_three_objects_at_a_corner_all_give_way() -> None:
    instances = torch.ones(1, 8, 8, dtype=torch.int32)
    instances[:, :4, 4:] = 2
    instances[:, 4:, :] = 3
    assert with_gaps(instances)[0, 3:5].eq(0).all()


def test_large_ids_are_told_apart() -> None:
    instances = torch.full((1, 8, 8), 16_000_000, dtype=torch.int32)
    instances[:, :, 4:] = 16_000_001
    assert with_gaps(instances)[0, 0].eq(0).int().tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_background_alone_has_neither_mask_nor_boundary() -> None:
    assert not targets(torch.zeros(2, 8, 8, dtype=torch.int32)).any()


@st.composite
def label_volumes(draw: st.DrawFn) -> NDArray[np.int64]:
    """Blocks of 1 to 4 voxels of few ids on up to 3 slices, down to single rows and voxels."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)))
    size, most = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    coarse = np.random.default_rng(draw(st.integers(0, 10_000))).integers(0, most + 1, (shape[0], 14, 14))
    return coarse.repeat(size, 1).repeat(size, 2)[:, : shape[1], : shape[2]]


def rules_written_out(instances: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mask and boundary voxel by voxel, with numpy's 'reflect' edge."""

    def windows(half: int, y: int, x: int) -> NDArray[np.int64]:
        return np.pad(labels, half, mode="reflect")[y : y + 2 * half + 1, x : x + 2 * half + 1]

    result = np.zeros((2, *instances.shape), np.float32)
    for z, slice_ in enumerate(instances):
        labels, separated = slice_, slice_.copy()
        for y, x in np.ndindex(slice_.shape):
            near = np.unique(windows(1, y, x))
            if (near > 0).sum() > 1:
                separated[y, x] = 0
        labels = separated
        result[0, z] = separated > 0
        for y, x in np.ndindex(slice_.shape):
            near = np.unique(windows(2, y, x))
            result[1, z, y, x] = len(near) >= 2 and near.max() > 0
    return result


@settings(max_examples=60, deadline=None)
@given(label_volumes())
def test_mask_and_boundary_equal_the_rules_written_out(instances: NDArray[np.int64]) -> None:
    assert np.array_equal(targets(torch.from_numpy(instances)).numpy(), rules_written_out(instances))


@settings(max_examples=20, deadline=None)
@given(label_volumes(), st.integers(1, 2**40))
def test_targets_do_not_depend_on_the_ids_or_their_type(instances: NDArray[np.int64], offset: int) -> None:
    labels = torch.from_numpy(instances)
    expected = targets(labels)
    assert torch.equal(targets(torch.where(labels > 0, 2**40 + offset - labels, 0)), expected)
    for dtype in (torch.int32, torch.int16, torch.uint8, torch.uint16, torch.uint32):
        assert torch.equal(targets(labels.to(dtype)), expected)


def test_a_batch_has_the_targets_of_its_samples() -> None:
    batch = torch.randint(0, 3, (2, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    before = batch.clone()
    result = targets(batch)
    assert result.shape == (2, 2, 3, 12, 12)
    assert torch.equal(result, torch.stack([targets(batch[0]), targets(batch[1])]))
    assert torch.equal(batch, before)


def test_without_the_gap_touching_objects_share_a_boundary_of_four() -> None:
    instances = torch.ones(1, 16, 16, dtype=torch.int32)
    instances[:, :, 8:] = 2
    mask, edge = targets(instances, gap=False)
    assert mask[0, 8].all()
    assert edge[0, 8].int().tolist() == [0] * 6 + [1] * 4 + [0] * 6


def column(values: list[float]) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, 1, -1)


def test_the_loss_has_the_value_worked_out_by_hand() -> None:
    # One foreground voxel of four: it weighs (1 - 0.25) / 0.25 = 3. At logit 0 every voxel costs ln 2.
    loss = weighted_bce(column([0.0, 0.0, 0.0, 0.0]), column([1.0, 0.0, 0.0, 0.0]))
    assert float(loss) == pytest.approx((3 + 1 + 1 + 1) / 4 * math.log(2))


def test_the_background_gains_weight_where_it_is_rare() -> None:
    loss = weighted_bce(column([0.0] * 5), column([1.0, 1.0, 1.0, 1.0, 0.0]))
    assert float(loss) == pytest.approx((4 * 1 + 4) / 5 * math.log(2))


@pytest.mark.parametrize(("foreground", "total", "weight"), [(1, 100, 19.0), (30, 100, 7 / 3), (1, 1000, 19.0)])
def test_the_weight_of_the_foreground_ends_at_nineteen(foreground: int, total: int, weight: float) -> None:
    target = column([1.0] * foreground + [0.0] * (total - foreground))
    loss = weighted_bce(torch.zeros_like(target), target)
    assert float(loss) == pytest.approx((foreground * weight + total - foreground) / total * math.log(2), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_uniform_target_is_not_weighted(value: float) -> None:
    assert float(weighted_bce(column([0.0] * 4), column([value] * 4))) == pytest.approx(math.log(2))


def test_samples_and_channels_are_weighted_on_their_own_and_channels_add_up() -> None:
    target = torch.zeros(2, 2, 1, 1, 4)
    target[0, 0, ..., :1] = 1
    target[1, 1, ..., :2] = 1
    loss = weighted_bce(torch.zeros_like(target), target)
    assert float(loss) == pytest.approx(((6 / 4 + 1) / 2 + (1 + 1) / 2) * math.log(2))


def test_a_sure_and_wrong_network_has_a_finite_loss() -> None:
    loss = weighted_bce(column([-1e4, 1e4]), column([1.0, 0.0]))
    assert float(loss) == pytest.approx(1e4)


def equations_written_out(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Equations (1) to (3): p by sigmoid, f clipped to 0.05..0.99; mean over samples and voxels, sum over channels."""
    total = 0.0
    for channel in range(target.shape[1]):
        samples = []
        for p, y in zip(1.0 / (1.0 + np.exp(-logits[:, channel])), target[:, channel], strict=True):
            foreground = min(max(y.mean(), 0.05), 0.99)
            positive, negative = 1.0, 1.0
            if 0.0 < y.mean() < 1.0:
                positive = (1.0 - foreground) / foreground if foreground < 0.5 else 1.0
                negative = foreground / (1.0 - foreground) if foreground >= 0.5 else 1.0
            samples.append(np.mean(-positive * y * np.log(p) - negative * (1.0 - y) * np.log(1.0 - p)))
        total += float(np.mean(samples))
    return total


@pytest.mark.parametrize("fractions", [(0.01, 0.3), (0.6, 0.0), (1.0, 0.995), (0.5, 0.04)])
def test_the_loss_equals_its_equations_in_double_precision(fractions: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (3, 2, 2, 10, 10))
    target = np.stack([random.random((3, 2, 10, 10)) < fraction for fraction in fractions], 1).astype(np.float64)
    result = weighted_bce(torch.from_numpy(logits).float(), torch.from_numpy(target).float())
    assert float(result) == pytest.approx(equations_written_out(logits, target), rel=1e-5)


def test_a_common_foreground_makes_the_background_weigh_half_more() -> None:
    target = column([1.0] * 60 + [0.0] * 40)
    assert float(weighted_bce(torch.zeros_like(target), target)) == pytest.approx((60 + 40 * 1.5) / 100 * math.log(2))


def test_dice_has_the_value_worked_out_by_hand() -> None:
    # p = 1/2 everywhere: 2 * (2 * 1/2) + 1 over 4 * 1/2 + 2 + 1
    assert float(dice_loss(column([0.0] * 4), column([1.0, 1.0, 0.0, 0.0]))) == pytest.approx(1 - 3 / 5)


def test_dice_is_zero_for_a_perfect_map_also_an_empty_one_and_near_one_for_a_wrong_one() -> None:
    full = column([1.0] * 50 + [0.0] * 50)
    assert float(dice_loss(1e3 * (full - 0.5), full)) == pytest.approx(0.0, abs=1e-6)
    assert float(dice_loss(torch.full_like(full, -1e3), torch.zeros_like(full))) == pytest.approx(0.0, abs=1e-6)
    assert float(dice_loss(-1e3 * (full - 0.5), full)) > 0.98


def pair() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 2, 2, 8, 8, generator=random) < 0.3).float()
    return torch.randn(target.shape, generator=random).requires_grad_(), target


def test_the_published_loss_is_weighted_cross_entropy_alone() -> None:
    logits, target = pair()
    assert torch.equal(loss(logits, target, Loss())[0], weighted_bce(logits, target))


def test_kinds_and_channels_are_weighted_and_the_parts_add_up() -> None:
    logits, target = pair()
    total, parts = loss(logits, target, Loss(bce=0.5, dice=2.0, channels=(1.0, 3.0)))
    each = [
        0.5 * weighted_bce(logits[:, c : c + 1], target[:, c : c + 1])
        + 2.0 * dice_loss(logits[:, c : c + 1], target[:, c : c + 1])
        for c in range(2)
    ]
    assert list(parts) == ["semantic", "boundary"]
    assert float(parts["semantic"]) == pytest.approx(float(each[0].detach()))
    assert float(parts["boundary"]) == pytest.approx(3.0 * float(each[1].detach()))
    assert float(total.detach()) == pytest.approx(float(sum(parts.values())))
    assert total.requires_grad and not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("chosen", [Loss(), Loss(bce=0.0, dice=1.0), Loss(dice=0.5)])
def test_the_loss_falls_along_its_gradient_and_half_precision_is_computed_in_single(chosen: Loss) -> None:
    logits, target = pair()
    total = loss(logits, target, chosen)[0]
    total.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - 0.1 * logits.grad / logits.grad.norm(), target, chosen)[0] < total
    half = loss(logits.detach().bfloat16(), target, chosen)[0]
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(total.detach()), rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bce": 0.0},
        {"dice": -1.0},
        {"channels": (0.0, 0.0)},
        {"channels": (1.0, -1.0)},
        {"fraction_clip": (0.0, 0.9)},
        {"fraction_clip": (0.9, 0.1)},
        {"focal": 1.0},
    ],
)
def test_a_loss_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Loss(**wrong)
    assert Loss.model_validate_json(Loss(dice=0.5).model_dump_json()) == Loss(dice=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_targets_and_loss_are_the_same_on_cuda() -> None:
    instances = torch.randint(0, 4, (2, 3, 20, 20), dtype=torch.int32).repeat_interleave(3, -1)
    assert torch.equal(targets(instances.cuda()).cpu(), targets(instances))
    logits, target = pair()
    for chosen in (Loss(), Loss(dice=1.0)):
        there = loss(logits.cuda(), target.cuda(), chosen)[0]
        assert float(there) == pytest.approx(float(loss(logits, target, chosen)[0]), rel=1e-4)
