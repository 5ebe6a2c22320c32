from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.training.loss import weighted_bce
from pipeline.training.targets import boundary, targets, with_gaps


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


def brute_force_boundary(instances: Tensor) -> Tensor:
    """5x5 window with numpy's 'reflect' edge: more than one value, and one above 0."""
    padded = torch.nn.functional.pad(instances.float()[None], (2, 2, 2, 2), mode="reflect")[0]
    windows = padded.unfold(1, 5, 1).unfold(2, 5, 1).flatten(-2)
    return (windows.amax(-1) != windows.amin(-1)) & (windows.amax(-1) > 0)


@given(st.integers(0, 10_000))
def test_the_boundary_equals_the_rule_written_out(seed: int) -> None:
    coarse = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    instances = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.equal(boundary(instances), brute_force_boundary(instances))


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
