from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.geometry import Box
from pipeline.store.volume import Volume, open_volume

SHAPE = (23, 37, 45)
NAMES = [
    "zarr v2", "zarr v2, Fortran order", "zarr v3", "OME-Zarr 0.4", "OME-Zarr 0.5", "TIFF", "big-endian TIFF",
    "BigTIFF", "ImageJ TIFF", "ImageJ TIFF of one page", "tiled deflate TIFF", "TIFF of strips", "JPEG XL TIFF",
    "TIFF folder", "HDF5", "HDF5 dataset", "precomputed",
]  # fmt: skip
PLACED = ["OME-Zarr 0.4", "OME-Zarr 0.5", "HDF5", "HDF5 dataset", "precomputed"]


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes in the array and across its border."""
    spans = [sorted(draw(st.tuples(st.integers(-4, n + 4), st.integers(-4, n + 4)))) for n in SHAPE]
    (a, b), (c, d), (e, f) = spans
    return Box((a, c, e), (b, d, f))


def sliced(array: npt.NDArray[np.uint16], box: Box) -> npt.NDArray[np.uint16]:
    """What numpy slicing of the zero-padded array gives."""
    return np.pad(array, 4)[box.slices((-4, -4, -4))]


@pytest.mark.parametrize("name", NAMES)
def test_a_box_read_from_any_format_equals_numpy_slicing(
    name: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    volume = open_volume(addresses[name])
    assert (volume.shape, volume.dtype) == (SHAPE, "uint16")

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(box=boxes())
    def holds(box: Box) -> None:
        found = volume.read(box)
        assert found.flags.c_contiguous
        assert found.dtype == np.dtype("uint16")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, sliced(array, box))

    holds()
    np.testing.assert_array_equal(volume.read(volume.box), array)


@pytest.mark.parametrize("name", PLACED)
def test_formats_that_state_voxel_size_and_offset_give_both_exactly(name: str, addresses: Mapping[str, str]) -> None:
    volume = open_volume(addresses[name])
    assert volume.voxel_size_nm == pytest.approx((30.0, 8.5, 8.0), rel=1e-12)
    assert volume.offset_nm == pytest.approx((90.0, -17.0, 40.0), rel=1e-12)


@pytest.mark.parametrize("name", ["zarr v3", "TIFF folder", "tiled deflate TIFF", "HDF5", "precomputed"])
def test_a_cropped_volume_reads_its_own_box(
    name: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    volume = open_volume(f"{addresses[name]}[3:20,:,7:40]")
    assert volume.shape == (17, 37, 33)
    np.testing.assert_array_equal(volume.read(Box((1, 2, 3), (9, 30, 31))), array[4:12, 2:30, 10:38])


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_one_handle_and_read_the_same_voxels(
    name: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    volume = open_volume(addresses[name])
    wanted = [Box((z, y, 3), (z + 9, y + 13, 41)) for z in range(0, 14, 3) for y in range(0, 24, 7)]
    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(wanted, pool.map(volume.read, wanted), strict=True):
            np.testing.assert_array_equal(found, array[box.slices()])


def test_a_volume_travels_as_a_few_hundred_bytes(addresses: Mapping[str, str]) -> None:
    volume = open_volume(addresses["precomputed"])
    volume.read(Box((0, 0, 0), (1, 1, 1)))
    data = pickle.dumps(volume)
    assert len(data) < 700
    copy: Volume = pickle.loads(data)
    assert copy == volume


def test_importing_the_volume_module_loads_no_heavy_library() -> None:
    code = (
        "import sys, pipeline, pipeline.store.volume\n"
        "print([name for name in ('torch', 'cloudvolume', 'dask', 'prefect') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
