from __future__ import annotations

import json
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.image.mask import CoarseMask, _factors, _nearest, open_mask
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume


def source(shape: Vec3, size: FloatVec3 | None = None) -> Volume:
    return Volume("raw", "", "zarr", shape, "uint8", shape, size)


def write(path: Path, values: NDArray[np.generic], size: FloatVec3 | None = None) -> str:
    z, y, x = values.shape
    ome_zarr.create(str(path), (z, y, x), (z, y, x), (z, y, x), str(values.dtype), size)
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return str(path)


def upsampled(coarse: NDArray[np.generic], extent: Vec3, factor: Vec3) -> NDArray[np.bool_]:
    fine = np.zeros(extent, np.bool_)
    for at in np.ndindex(*extent):
        fine[at] = coarse[at[0] // factor[0], at[1] // factor[1], at[2] // factor[2]] != 0
    return fine


@pytest.mark.parametrize("factor", [(1, 1, 1), (1, 4, 4), (2, 3, 4), (9, 1, 2)])
def test_any_box_reads_as_of_the_mask_at_full_resolution(factor: Vec3, tmp_path: Path) -> None:
    extent = (9, 13, 14)
    shape = tuple(-(-n // f) for n, f in zip(extent, factor, strict=True))
    coarse = np.random.default_rng(3).integers(0, 2, shape, dtype=np.uint8) * 200
    mask = CoarseMask(open_volume(write(tmp_path / "mask", coarse)), extent, factor)
    expected = upsampled(coarse, extent, factor)
    starts = product((0, 1, 5), (0, 3, 6), (0, 4, 13))
    for start, stop in product(starts, [(6, 7, 14), (9, 13, 14)]):
        box = Box(start, stop)
        read = mask.read(box)
        assert read.dtype == np.bool_
        np.testing.assert_array_equal(read, expected[box.slices()])


@pytest.mark.parametrize(
    ("extent", "shape", "factor"),
    [
        ((9, 13, 14), (9, 13, 14), (1, 1, 1)),
        ((9, 13, 14), (9, 4, 4), (1, 4, 4)),
        ((100, 650, 700), (50, 11, 11), (2, 64, 64)),  # 650 in 11: 60 to 64; the power of two
        ((20, 65, 70), (7, 22, 24), (3, 3, 3)),
        ((9, 9, 9), (1, 1, 1), (9, 9, 9)),
    ],
)
def test_factors_follow_from_the_shapes(extent: Vec3, shape: Vec3, factor: Vec3, tmp_path: Path) -> None:
    mask = open_mask(write(tmp_path / "mask", np.ones(shape, np.uint8)), source(extent), "the damage mask")
    assert mask.factor == factor
    last = Box((extent[0] - 1, 0, 0), extent)
    assert mask.read(last).all()


def test_voxel_sizes_decide_where_the_shape_leaves_a_choice(tmp_path: Path) -> None:
    address = write(tmp_path / "mask", np.ones((9, 11, 11), np.uint8), (30.0, 496.0, 480.0))
    mask = open_mask(address, source((9, 650, 650), (30.0, 8.0, 8.0)), "the damage mask")
    assert mask.factor == (1, 62, 60)


def test_voxel_sizes_that_contradict_the_shape_are_refused(tmp_path: Path) -> None:
    address = write(tmp_path / "mask", np.ones((9, 11, 11), np.uint8), (30.0, 16.0, 16.0))
    with pytest.raises(BadInput, match=r"voxel size \[1, 2, 2\] times.*\[9, 11, 11\] for \[9, 650, 650\].*60 to 64"):
        open_mask(address, source((9, 650, 650), (30.0, 8.0, 8.0)), "the damage mask")


def test_a_mask_of_the_volumes_own_shape_needs_no_voxel_size(tmp_path: Path) -> None:
    address = write(tmp_path / "mask", np.ones((9, 11, 11), np.uint8), (1.0, 1.0, 1.0))
    assert open_mask(address, source((9, 11, 11), (30.0, 8.0, 8.0)), "the damage mask").factor == (1, 1, 1)


SIZE = (30.0, 8.0, 8.0)


def placed(path: Path, shape: Vec3, size: FloatVec3, offset: FloatVec3) -> str:
    ome_zarr.create(str(path), shape, shape, shape, "uint8", size, offset)
    return str(path)


@pytest.mark.parametrize("start", [0.0, 14.0])  # the corner of the first voxel of the mask, or its centre
@pytest.mark.parametrize("crop", ["", "[2:6,4:20,0:16]"])
def test_a_mask_that_begins_where_the_volume_does_is_taken_and_one_beside_it_is_not(
    start: float, crop: str, tmp_path: Path
) -> None:
    raw = placed(tmp_path / "raw", (9, 24, 24), SIZE, (300.0, 80.0, 80.0))
    volume = open_volume(raw + crop)
    coarse, (z, y, x) = vec3(-(-n // f) for n, f in zip(volume.shape, (1, 4, 4), strict=True)), volume.offset_nm
    for name, shift in (("here", 0.0), ("beside", -32.0)):
        address = placed(tmp_path / name, coarse, (30.0, 32.0, 32.0), (z, y + start, x + start + shift))
        if not shift:
            assert open_mask(address, volume, "the damage mask").factor == (1, 4, 4)
            continue
        with pytest.raises(
            BadInput, match=r"damage mask .*beside at .* for a volume at .*both begin in the same place"
        ):
            open_mask(address, volume, "the damage mask")


def test_a_mask_cropped_elsewhere_than_the_volume_is_refused(tmp_path: Path) -> None:
    raw, mask = (placed(tmp_path / name, (9, 24, 24), SIZE, (0.0, 0.0, 0.0)) for name in ("raw", "mask"))
    volume = open_volume(raw + "[2:6,:,:]")
    assert open_mask(mask + "[2:6,:,:]", volume, "the damage mask").factor == (1, 1, 1)
    with pytest.raises(
        BadInput, match=r"\[1:5,:,:\] at 30,0,0 nm \(z, y, x\), for a volume at 60,0,0 nm .*Crop both alike"
    ):
        open_mask(mask + "[1:5,:,:]", volume, "the damage mask")


def test_a_mask_whose_file_states_no_offset_is_taken_for_any_crop(tmp_path: Path) -> None:
    raw = placed(tmp_path / "raw", (9, 24, 24), SIZE, (0.0, 0.0, 0.0))
    mask = Path(placed(tmp_path / "mask", (5, 24, 24), SIZE, (0.0, 0.0, 0.0)))
    tifffile.imwrite(tmp_path / "mask.tif", np.ones((5, 24, 24), np.uint8))
    volume = open_volume(raw + "[2:7,:,:]")
    assert open_mask(str(tmp_path / "mask.tif"), volume, "the damage mask").factor == (1, 1, 1)
    with pytest.raises(BadInput, match="both begin in the same place"):
        open_mask(str(mask), volume, "the damage mask")
    facts = json.loads((mask / "zarr.json").read_text())
    del facts["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]
    (mask / "zarr.json").write_text(json.dumps(facts))
    assert open_mask(str(mask), volume, "the damage mask").factor == (1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "nearest"),
    [((9, 8, 13), r"\[9, 7, 13\]"), ((9, 13, 15), r"\[9, 13, 13\]"), ((4, 14, 2), r"\[., 13, 2\]")],
)
def test_a_mask_of_another_shape_is_refused_with_both_shapes_and_the_nearest(
    shape: Vec3, nearest: str, tmp_path: Path
) -> None:
    address = write(tmp_path / "mask", np.ones(shape, np.uint8))
    with pytest.raises(
        BadInput, match=rf"damage mask .*shape \[{shape[0]}, .*\[9, 13, 13\].*nearest legal shape is {nearest}"
    ):
        open_mask(address, source((9, 13, 13)), "the damage mask")


def test_the_nearest_legal_shape_is_legal() -> None:
    for length in range(1, 40):
        for coarse in range(1, 60):
            legal = _nearest(length, coarse)
            assert len(_factors(length, legal)) > 0
            assert all(-(-length // f) == legal for f in _factors(length, legal))
            if _factors(length, coarse):
                assert legal == coarse


def test_any_value_but_zero_is_marked_and_a_mask_travels_to_workers(tmp_path: Path) -> None:
    values = np.array([0, 1, 2, 255], np.uint8).reshape(1, 2, 2)
    mask = open_mask(write(tmp_path / "mask", values), source((1, 2, 2)), "the damage mask")
    travelled: CoarseMask = pickle.loads(pickle.dumps(mask))
    assert travelled.read(Box.of_shape((1, 2, 2))).tolist() == [[[False, True], [True, True]]]


def test_a_box_with_nothing_marked_is_known_from_the_coarse_voxels_alone(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 4), np.uint8)
    values[1, 2, 2] = 5
    mask = open_mask(write(tmp_path / "mask", values), source((3, 16, 16)), "the damage mask")
    assert mask.any(Box((1, 10, 10), (2, 12, 12)))
    assert not mask.any(Box((0, 0, 0), (1, 16, 16)))
    assert not mask.any(Box((0, 0, 0), (3, 8, 16)))


def test_a_mask_with_values_that_are_no_numbers_is_refused_where_it_is_read(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 4), np.float32)
    values[1, 2, 3] = np.nan
    mask = open_mask(write(tmp_path / "mask", values), source((3, 8, 8)), "the damage mask")
    assert not mask.any(Box((0, 0, 0), (1, 8, 8)))
    for read in (mask.any, mask.read):
        with pytest.raises(BadInput, match=r"1 voxels in box .* are NaN or infinite"):
            read(Box((0, 0, 0), (3, 8, 8)))
