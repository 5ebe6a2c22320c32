from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Vec3
from pipeline.instances.ops.fragments import FRAGMENT, Rows
from pipeline.instances.ops.select import kept, share, touches_border
from pipeline.instances.plan import InstancePlan

EXTENT = (10, 20, 30)


def instance(voxels: int = 50, start: Vec3 = (2, 2, 2), stop: Vec3 = (5, 5, 5), inside: int = 0) -> Rows:
    row = np.zeros(1, FRAGMENT)
    row["voxels"], row["start"], row["stop"], row["inside"] = voxels, start, stop, inside
    return row


def chosen(rows: Rows, *, tissue: bool = False, **settings: float) -> list[bool]:
    return kept(rows, EXTENT, InstancePlan(229, 204, **settings), tissue=tissue).tolist()  # type: ignore[arg-type]


def test_an_instance_of_the_minimum_size_stays_and_one_voxel_less_is_dropped() -> None:
    rows = np.concatenate([instance(99), instance(100), instance(101)])
    assert chosen(rows, minimum_voxels=100) == [False, True, True]


def test_without_settings_every_instance_stays() -> None:
    rows = np.concatenate([instance(1), instance(start=(0, 0, 0), stop=EXTENT)])
    assert chosen(rows) == [True, True]
    assert chosen(np.zeros(0, FRAGMENT), minimum_voxels=9, drop_border=True) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_first_and_the_last_voxel_of_each_axis_are_the_border_and_the_next_ones_are_not(axis: int) -> None:
    def moved(start: int, stop: int) -> Rows:
        low, high = [2, 2, 2], [5, 5, 5]
        low[axis], high[axis] = start, stop
        return instance(start=(low[0], low[1], low[2]), stop=(high[0], high[1], high[2]))

    last = EXTENT[axis]
    rows = np.concatenate([moved(0, 3), moved(1, 3), moved(2, last - 1), moved(2, last)])
    assert touches_border(rows, EXTENT).tolist() == [True, False, False, True]
    assert chosen(rows, drop_border=True) == [False, True, True, False]
    assert chosen(rows, drop_border=False) == [True] * 4


def test_exactly_the_share_inside_the_tissue_is_enough() -> None:
    rows = np.concatenate([instance(30, inside=n) for n in (0, 2, 3, 14, 15, 30)])
    assert chosen(rows, tissue=True, tissue_fraction=0.1) == [False, False, True, True, True, True]
    assert chosen(rows, tissue=True, tissue_fraction=0.5) == [False, False, False, False, True, True]
    assert chosen(rows, tissue=True, tissue_fraction=1.0) == [False, False, False, False, False, True]
    assert chosen(rows, tissue=True, tissue_fraction=0.0) == [True] * 6


def test_half_of_an_odd_number_of_voxels_is_rounded_up() -> None:
    rows = np.concatenate([instance(31, inside=n) for n in (15, 16)])
    assert chosen(rows, tissue=True, tissue_fraction=0.5) == [False, True]


def test_without_a_tissue_mask_nothing_is_dropped_for_it() -> None:
    assert chosen(instance(30, inside=0), tissue_fraction=0.5) == [True]


def test_every_reason_is_enough_to_drop_an_instance() -> None:
    good = instance(30, inside=30)
    rows = np.concatenate(
        [good, instance(9, inside=9), instance(30, (0, 2, 2), inside=30), instance(30, inside=14)],
    )
    limits = {"minimum_voxels": 10, "drop_border": True, "tissue_fraction": 0.5}
    assert chosen(rows, tissue=True, **limits) == [True, False, False, False]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**62), st.integers(0, 10**6))
def test_a_share_is_exact_for_every_number_of_voxels(count: int, millionths: int) -> None:
    exact = -((-count * millionths) // 10**6)
    assert int(share(np.array([count], np.uint64), millionths / 10**6)[0]) == exact


def test_a_share_of_0_1_is_a_tenth_and_not_the_nearest_double() -> None:
    counts = np.arange(0, 100, dtype=np.uint64)
    assert share(counts, 0.1).tolist() == [-(-n // 10) for n in range(100)]
    assert share(counts, 1 / 3).tolist() == [-(-n // 3) for n in range(100)]
    assert Fraction(0.1) != Fraction(1, 10)
