"""What a plan chooses where the configuration leaves it open, and what it makes of the rest."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.denoise.ops.damage import BLUR, INTENSITY, MISSING, RESIDUAL, SATURATED
from pipeline.denoise.plan import plan_denoising
from pipeline.denoise.settings import DenoiseSettings
from pipeline.engine.blocks import DEFAULT_BLOCK_VOXELS, block_shape, chunk_shape, default_block
from pipeline.errors import BadInput
from pipeline.grid import BlockGrid
from pipeline.instances.ops.grow import halo
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.run.config import RunConfig
from pipeline.settings import parse_settings
from pipeline.store.volume import Volume

SIDE = st.integers(1, 3000)
SIDES = st.tuples(SIDE, SIDE, SIDE)


@given(SIDES)
def test_chunks_divide_the_block_whatever_its_shape(block: tuple[int, int, int]) -> None:
    chunk = chunk_shape(block)
    assert all(b % c == 0 for b, c in zip(block, chunk, strict=True))
    assert all(c <= 128 or c == b for b, c in zip(block, chunk, strict=True))


@given(st.tuples(*[st.integers(1, 60_000)] * 3))
def test_a_default_block_holds_the_volume_or_is_large_and_never_too_large(extent: tuple[int, int, int]) -> None:
    block = default_block(extent)
    held = prod(min(b, e) for b, e in zip(block, extent, strict=True))
    assert held <= DEFAULT_BLOCK_VOXELS
    assert held == prod(extent) or held > DEFAULT_BLOCK_VOXELS / 8
    assert len(BlockGrid(extent, block)) >= 1
    assert chunk_shape(block)


def test_the_default_block_of_a_petavoxel_is_found_at_once() -> None:
    block = default_block((20_000, 250_000, 250_000))
    assert DEFAULT_BLOCK_VOXELS / 4 < prod(block) <= DEFAULT_BLOCK_VOXELS


def test_a_block_whose_labels_do_not_fit_32_bits_is_refused_with_one_that_does() -> None:
    with pytest.raises(BadInput, match=r"block.shape=\[2048, 2048, 2048\].*at most 2\^31 voxels.*For example \["):
        block_shape((2048, 2048, 2048), (4096, 4096, 4096))
    assert block_shape((2048, 1024, 1024), (4096, 4096, 4096)) == (2048, 1024, 1024)


def test_the_published_preset_is_the_published_one() -> None:
    plan = instance_plan(InstanceSettings(preset="published"), (30.0, 8.0, 8.0), None)
    assert (plan.seed_above, plan.boundary_below) == (229, 204)  # 0.9 and 0.8 of 255, truncated
    assert (plan.connectivity, plan.grow, plan.minimum_voxels, plan.minimum_seed_voxels) == (6, "dilate", 128, 2)


def test_a_setting_wins_over_its_preset() -> None:
    settings = InstanceSettings(preset="published", connectivity=26, minimum_voxels=0, seed_above=0.0)
    plan = instance_plan(settings, (30.0, 8.0, 8.0), None)
    assert (plan.connectivity, plan.minimum_voxels, plan.seed_above, plan.boundary_below) == (26, 0, 0, 204)


@pytest.mark.parametrize(
    ("size", "grow_nm", "voxels"),
    [
        ((30.0, 8.0, 8.0), 60.0, (2, 7, 7)),
        ((10.0, 10.0, 10.0), 60.0, (6, 6, 6)),
        ((0.1, 0.1, 0.1), 0.3, (3, 3, 3)),  # 0.3 / 0.1 is a hair below 3
    ],
)
def test_growth_in_nanometres_becomes_whole_voxels_of_each_axis(
    size: tuple[float, float, float], grow_nm: float, voxels: tuple[int, int, int]
) -> None:
    plan = instance_plan(InstanceSettings(grow="mask", grow_nm=grow_nm), size, None)
    assert plan.grow == "mask"
    assert halo(plan.grow_nm, plan.voxel_size_nm) == voxels


def test_growth_of_less_than_a_voxel_is_none() -> None:
    plan = instance_plan(InstanceSettings(grow="mask", grow_nm=5.0), (30.0, 8.0, 8.0), None)
    assert (plan.grow, plan.grow_nm) == ("none", 0.0)


def test_the_baseline_preset_is_the_published_baseline() -> None:
    plan = instance_plan(InstanceSettings(preset="bc_watershed"), (30.0, 8.0, 8.0), None)
    assert (plan.seed_above, plan.boundary_below, plan.mask_above) == (229, 204, 216)  # .9, .8 and .85, truncated
    assert (plan.connectivity, plan.grow, plan.minimum_voxels, plan.minimum_seed_voxels) == (26, "watershed", 128, 32)
    assert plan.watershed_halo == (8, 31, 31)


def test_a_smallest_volume_becomes_voxels_rounded_up() -> None:
    size = (5.0, 5.0, 5.0)  # 125 nm^3 a voxel
    voxels = [instance_plan(InstanceSettings(minimum_um3=v), size, None).minimum_voxels for v in (0, 1e-6, 1.01e-6)]
    assert voxels == [0, 8, 9]
    assert instance_plan(InstanceSettings(minimum_voxels=3), size, None).minimum_voxels == 3
    assert instance_plan(InstanceSettings(), size, None).minimum_voxels == 8000  # 0.001 um^3


def test_two_smallest_sizes_at_once_are_refused() -> None:
    with pytest.raises(BadInput, match=r"instances.*minimum_voxels and minimum_um3.*give one of them"):
        parse_settings(RunConfig, {"input": "a", "output": "b", "instances": {"minimum_voxels": 1, "minimum_um3": 1}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preset", "watershed"),
        ("grow", "flood"),
        ("watershed_halo_nm", -1),
        ("fill_holes_nm", float("inf")),
        ("minimum_seed_voxels", -1),
        ("minimum_um3", -0.1),
        ("join_gap", -1),
        ("join_gap", 1.5),
        ("join_overlap", 1.1),
        ("tissue_fraction", -0.1),
        ("drop_border", "perhaps"),
    ],
)
def test_an_instance_setting_out_of_range_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"instances.{key}="):
        parse_settings(RunConfig, {"input": "a", "output": "b", "instances": {key: value}})


def test_the_largest_hole_is_whole_voxels_of_each_axis_and_none_by_default() -> None:
    size = (30.0, 8.0, 8.0)
    assert instance_plan(InstanceSettings(fill_holes_nm=100.0), size, None).fill_holes == (3, 12, 12)
    for preset in ("default", "published", "bc_watershed"):
        assert instance_plan(InstanceSettings(preset=preset), size, None).fill_holes == (0, 0, 0)


def test_thresholds_reach_both_ends_of_the_stored_scale() -> None:
    settings = InstanceSettings(seed_above=0.0, boundary_below=1.0, mask_above=1.0)
    plan = instance_plan(settings, (8.0, 8.0, 8.0), None)
    assert (plan.seed_above, plan.boundary_below, plan.mask_above) == (0, 255, 255)
    assert np.uint8(255) > plan.seed_above


@pytest.mark.parametrize(
    ("section_nm", "kinds", "replaced", "relevelled"),
    [
        (20.0, None, MISSING | RESIDUAL | BLUR | INTENSITY | SATURATED, 0),
        (40.0, None, MISSING | RESIDUAL | SATURATED, BLUR | INTENSITY),
        (40.0, ["blur", "missing"], BLUR | MISSING, 0),
    ],
)
def test_thick_sections_keep_what_is_blurred_or_pale_unless_it_is_asked_for(
    section_nm: float, kinds: list[str] | None, replaced: int, relevelled: int
) -> None:
    settings = parse_settings(DenoiseSettings, {"mode": "auto", "kinds": kinds})
    source = Volume("raw", "", "zarr", (9, 64, 64), "uint8", (9, 64, 64), (section_nm, 8.0, 8.0))
    planned = plan_denoising(settings, source, (section_nm, 8.0, 8.0), "raw")
    assert planned is not None and (planned.kinds, planned.relevelled) == (replaced, relevelled)
