"""The phantom: the same bits in every box, and tissue that is worth testing on."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.phantom import Phantom, write_phantom
from pipeline.phantom.mitochondria import DOMAIN_NM, REACH_NM, mitochondria
from pipeline.store.volume import open_volume

SMALL = Phantom((90, 150, 140), seed=3)
COARSE = Phantom((150, 150, 150), seed=7, voxel_size_nm=(30.0, 30.0, 30.0))


@lru_cache
def whole(phantom: Phantom) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    return phantom.both(phantom.box)


@lru_cache
def coarse_labels() -> NDArray[np.uint64]:
    return COARSE.instances(COARSE.box)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in SMALL.shape]
    stop = [draw(st.integers(a + 1, min(n, a + 80))) for a, n in zip(start, SMALL.shape, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@settings(deadline=None, max_examples=25)
@given(box=boxes())
def test_any_box_is_the_crop_of_the_whole_bit_by_bit(box: Box) -> None:
    image, labels = whole(SMALL)
    assert np.array_equal(SMALL.raw(box), image[box.slices()])
    assert np.array_equal(SMALL.instances(box), labels[box.slices()])


@pytest.mark.parametrize("size", [(30.0, 8.0, 8.0), (16.0, 16.0, 16.0), (100.0, 50.0, 50.0)])
def test_boxes_agree_at_other_voxel_sizes(size: tuple[float, float, float]) -> None:
    phantom = Phantom((40, 70, 60), seed=2, voxel_size_nm=size)
    image, labels = phantom.both(phantom.box)
    box = Box((7, 13, 11), (31, 66, 29))
    assert np.array_equal(phantom.raw(box), image[box.slices()])
    assert np.array_equal(phantom.instances(box), labels[box.slices()])


def test_a_larger_phantom_continues_a_smaller_one() -> None:
    box = Box((0, 0, 0), (30, 40, 50))
    larger = Phantom((5000, 5000, 5000), seed=3)
    assert np.array_equal(larger.raw(box), SMALL.raw(box))
    assert np.array_equal(larger.instances(box) > 0, SMALL.instances(box) > 0)


def test_different_seeds_give_different_tissue() -> None:
    box = Box((0, 0, 0), (40, 40, 40))
    images = [Phantom((40, 40, 40), seed=seed).raw(box) for seed in (0, 1, 2**70)]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


def test_a_far_box_of_a_million_cubed_is_made_quickly_and_has_large_ids() -> None:
    phantom = Phantom((10**6, 10**6, 10**6))
    corner = 10**6 - 64
    began = time.process_time()
    image, labels = phantom.both(Box((corner,) * 3, (10**6,) * 3))
    assert time.process_time() - began < 5.0
    assert image.std() > 20
    assert labels.max() > 2**32
    middle = phantom.instances(Box((500_000, 500_000, 500_000), (500_064, 500_128, 500_128)))
    assert len(np.unique(middle)) > 1


def test_voxels_outside_the_volume_are_zero() -> None:
    image, labels = SMALL.both(Box((-10, -10, -10), (10, 10, 10)))
    assert not image[:10].any()
    assert not labels[:, :10].any()
    assert np.array_equal(image[10:, 10:, 10:], whole(SMALL)[0][:10, :10, :10])


def test_a_tenth_of_the_tissue_is_mitochondria_and_they_are_darker() -> None:
    fractions = []
    for seed in range(3):
        phantom = Phantom((150, 150, 150), seed=seed, voxel_size_nm=(30.0, 30.0, 30.0))
        fractions.append((phantom.instances(phantom.box) > 0).mean())
    assert all(0.06 < fraction < 0.13 for fraction in fractions), fractions
    image, labels = whole(SMALL)
    assert 85 < image[labels > 0].mean() < 110 < 130 < image[labels == 0].mean() < 160


def test_every_instance_inside_the_volume_is_one_component() -> None:
    labels = np.unique(coarse_labels(), return_inverse=True)[1].reshape(COARSE.shape).astype(np.uint32)
    components = cc3d.connected_components(labels, connectivity=6)
    pairs = np.unique(np.stack([labels[labels > 0], components[labels > 0]]), axis=1)
    cut = {label for axis in range(3) for side in (0, -1) for label in np.unique(np.take(labels, side, axis))}
    counts = {int(label): int(n) for label, n in zip(*np.unique(pairs[0], return_counts=True), strict=True)}
    inner = {label: n for label, n in counts.items() if label not in cut}
    assert len(inner) > 20
    assert set(inner.values()) == {1}


def test_some_instances_touch_and_some_branch() -> None:
    labels = coarse_labels()
    assert len(touching(labels)) >= 5
    found = mitochondria(7, np.zeros(3), np.full(3, 4500.0))
    assert 0.03 < found.branched.mean() < 0.4


def touching(labels: NDArray[np.uint64]) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    for axis in range(3):
        moved: NDArray[Any] = np.moveaxis(labels, axis, 0)
        a, b = moved[1:], moved[:-1]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= set(zip(np.minimum(a, b)[meet].tolist(), np.maximum(a, b)[meet].tolist(), strict=True))
    return pairs


def test_instances_cross_faces_edges_and_corners_of_blocks() -> None:
    labels = Phantom((256, 256, 256)).instances(Box((0, 0, 0), (256, 256, 256)))
    for axis in range(3):
        sides = [set(np.unique(np.take(labels, plane, axis))) for plane in (127, 128)]
        assert len(sides[0] & sides[1] - {0}) > 2
    corners = 0
    for z, y, x in np.ndindex(7, 7, 7):
        around = np.unique(labels[32 * z + 31 : 32 * z + 33, 32 * y + 31 : 32 * y + 33, 32 * x + 31 : 32 * x + 33])
        corners += len(around) == 1 and int(around[0]) > 0
    assert corners >= 2


def test_no_mitochondrion_reaches_beyond_what_a_box_gathers() -> None:
    found = mitochondria(1, np.zeros(3), np.full(3, 6000.0))
    lows, highs = found.chains.bounds()
    cell = found.cell * DOMAIN_NM
    assert (cell - lows).max() < REACH_NM
    assert (highs - cell - DOMAIN_NM).max() < REACH_NM


def test_ids_are_unique_to_a_mitochondrion() -> None:
    labels = coarse_labels()
    found = mitochondria(7, np.zeros(3), np.full(3, 4500.0))
    assert len(np.unique(labels)) - 1 <= len(found)


def test_a_written_phantom_reads_back(tmp_path: Path) -> None:
    phantom = Phantom((70, 130, 65), seed=1, voxel_size_nm=(20.0, 10.0, 10.0))
    seen: list[tuple[int, int]] = []
    write_phantom(str(tmp_path / "p"), phantom, (64, 64, 64), lambda done, of: seen.append((done, of)))
    raw, instances = open_volume(str(tmp_path / "p" / "raw")), open_volume(str(tmp_path / "p" / "instances"))
    assert raw.shape == instances.shape == phantom.shape
    assert (raw.dtype, instances.dtype) == ("uint8", "uint64")
    assert raw.voxel_size_nm == instances.voxel_size_nm == phantom.voxel_size_nm
    assert np.array_equal(raw.read(raw.box), phantom.raw(phantom.box))
    assert np.array_equal(instances.read(raw.box), phantom.instances(phantom.box))
    assert seen[-1] == (12, 12)


@pytest.mark.parametrize("shape", [(0, 10, 10), (10, -1, 10), (10, 10), (10, 10, 10, 10), (10, 10, 2.5)])
def test_a_shape_that_is_not_three_positive_numbers_is_refused(shape: Any) -> None:
    with pytest.raises(BadInput, match=r"phantom shape .*three positive whole numbers"):
        Phantom(shape)


@pytest.mark.parametrize("size", [(0.0, 10.0, 10.0), (10.0, 10.0), (10.0, 10.0, 200.0), (float("nan"), 1.0, 1.0)])
def test_a_voxel_size_out_of_range_is_refused(size: Any) -> None:
    with pytest.raises(BadInput, match=r"phantom voxel size .*from 1 to 100 nm"):
        Phantom((10, 10, 10), voxel_size_nm=size)


@pytest.mark.parametrize("block", [(60, 64, 64), (0, 64, 64), (64, 64)])
def test_a_block_that_splits_chunks_is_refused(tmp_path: Path, block: Any) -> None:
    with pytest.raises(BadInput, match="positive multiples of 64"):
        write_phantom(str(tmp_path), SMALL, block)


def test_importing_the_phantom_loads_no_heavy_framework() -> None:
    code = (
        "import sys, pipeline.phantom, pipeline.evaluation.blockwise;"
        "print([m for m in ('torch', 'dask', 'prefect', 'cloudvolume') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
