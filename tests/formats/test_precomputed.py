from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3
from pipeline.store.formats.precomputed import create_precomputed, mip_levels
from pipeline.store.volume import Volume, open_volume

EXTENT: Vec3 = (9, 20, 33)


def created(path: Path, **changes: Any) -> Volume:
    settings: dict[str, Any] = {
        "extent": EXTENT,
        "dtype": "uint8",
        "voxel_size_nm": (30.0, 8.0, 8.0),
        "offset_nm": (0.0, 0.0, 0.0),
        "chunk": (4, 8, 16),
        "kind": "image",
    }
    create_precomputed(str(path), **(settings | changes))
    return open_volume(f"precomputed://{path}")


def test_a_voxel_size_that_is_no_whole_number_stays_exact(tmp_path: Path) -> None:
    size = (29.97, 8.0, 7.912345678901)
    volume = created(tmp_path / "v", voxel_size_nm=size, mips=[(1, 2, 2), (1, 2, 2)])
    assert volume.voxel_size_nm == size
    scales = json.loads((tmp_path / "v" / "info").read_text())["scales"]
    assert scales[2]["resolution"] == [4 * 7.912345678901, 32, 29.97]
    exported = CloudVolume(f"file://{tmp_path / 'v'}", progress=False)
    assert [float(value) for value in exported.resolution] == [7.912345678901, 8.0, 29.97]


def test_an_offset_off_the_voxel_lattice_is_returned_and_described_exactly(tmp_path: Path) -> None:
    remainder = create_precomputed(
        str(tmp_path / "v"), EXTENT, "uint8", (30.0, 8.0, 8.0), (61.0, -17.0, 16.0), (4, 8, 16), "image"
    )
    assert remainder == (1.0, -1.0, 0.0)
    assert json.loads((tmp_path / "v" / "info").read_text())["scales"][0]["voxel_offset"] == [2, -2, 2]
    assert open_volume(str(tmp_path / "v")).offset_nm == (61.0, -17.0, 16.0)


def test_what_cloud_volume_reads_back_is_the_transposed_array(tmp_path: Path) -> None:
    volume = created(tmp_path / "v", offset_nm=(60.0, 80.0, -16.0))
    array = np.random.default_rng(1).integers(0, 256, EXTENT, dtype=np.uint8)
    volume.write(volume.box, array)
    exported = CloudVolume(f"file://{tmp_path / 'v'}", progress=False, fill_missing=False)
    np.testing.assert_array_equal(np.asarray(exported[-2:31, 10:30, 2:11])[..., 0], array.transpose(2, 1, 0))


def test_labels_are_stored_as_compressed_segmentation_and_survive_at_both_ends_of_uint64(tmp_path: Path) -> None:
    volume = created(tmp_path / "v", dtype="uint64", kind="segmentation")
    labels = np.random.default_rng(2).choice(np.array([0, 1, 2**32, 2**64 - 1], np.uint64), EXTENT)
    volume.write(volume.box, labels)
    np.testing.assert_array_equal(volume.read(volume.box), labels)
    scale = json.loads((tmp_path / "v" / "info").read_text())["scales"][0]
    assert (scale["encoding"], scale["compressed_segmentation_block_size"]) == ("compressed_segmentation", [8, 8, 8])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int16", "float32"])
@pytest.mark.parametrize("kind", ["image", "segmentation"])
def test_every_dtype_is_written_and_read_back(dtype: str, kind: str, tmp_path: Path) -> None:
    volume = created(tmp_path / "v", dtype=dtype, kind=kind)
    array = np.random.default_rng(3).integers(0, 100, EXTENT).astype(dtype)
    volume.write(volume.box, array)
    found = volume.read(volume.box)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, array)


def test_chunks_never_written_read_as_zero(tmp_path: Path) -> None:
    volume = created(tmp_path / "v")
    volume.write(Box((4, 8, 16), (8, 16, 32)), np.full((4, 8, 16), 9, np.uint8))
    found = volume.read(volume.box)
    assert found.sum() == 9 * 4 * 8 * 16
    assert found[4:8, 8:16, 16:32].all()


@pytest.mark.parametrize(
    "box", [Box((0, 0, 1), (4, 8, 16)), Box((0, 0, 0), (4, 8, 17)), Box((8, 16, 32), (10, 20, 33))]
)
def test_a_write_that_cuts_chunks_is_refused_and_names_the_nearest_box(box: Box, tmp_path: Path) -> None:
    volume = created(tmp_path / "v")
    with pytest.raises(BadInput, match=r"whole chunks of \(4, 8, 16\).*nearest legal box"):
        volume.write(box, np.zeros(box.shape, np.uint8))


def test_a_border_block_need_not_fill_its_chunks(tmp_path: Path) -> None:
    volume = created(tmp_path / "v")
    volume.write(Box((8, 16, 32), (9, 20, 33)), np.full((1, 4, 1), 5, np.uint8))
    assert volume.read(volume.box).sum() == 20


def test_a_lossy_cast_is_refused(tmp_path: Path) -> None:
    volume = created(tmp_path / "v")
    with pytest.raises(BadInput, match="takes no float32"):
        volume.write(volume.box, np.zeros(EXTENT, np.float32))


def test_mips_are_volumes_of_their_own(tmp_path: Path) -> None:
    created(tmp_path / "v", mips=[(1, 2, 2)], offset_nm=(30.0, 8.0, 24.0))
    coarse = Volume(str(tmp_path / "v"), "1", "precomputed", (9, 11, 17), "uint8", (4, 8, 16))
    array = np.arange(9 * 11 * 17, dtype=np.int64).astype(np.uint8).reshape(9, 11, 17)
    coarse.write(coarse.box, array)
    np.testing.assert_array_equal(coarse.read(coarse.box), array)
    exported = CloudVolume(f"file://{tmp_path / 'v'}", mip=1, progress=False, fill_missing=False)
    assert [int(value) for value in exported.voxel_offset] == [1, 0, 1]
    assert [int(value) for value in exported.volume_size] == [17, 11, 9]


def test_levels_lie_on_one_lattice_through_the_origin() -> None:
    levels = mip_levels((10, 11, 12), (30.0, 8.0, 8.0), (0.0, 24.0, -8.0), [(1, 2, 2), (2, 2, 2)])
    assert [level.voxel_offset for level in levels] == [(0, 3, -1), (0, 1, -1), (0, 0, -1)]
    assert [level.extent for level in levels] == [(10, 11, 12), (10, 6, 7), (5, 4, 4)]
    assert levels[2].voxel_size_nm == (60.0, 32.0, 32.0)


def test_a_missing_mip_a_bad_path_and_a_second_channel_are_refused(tmp_path: Path) -> None:
    volume = created(tmp_path / "v")
    with pytest.raises(BadInput, match="mip must exist"):
        Volume(volume.url, "3", "precomputed", EXTENT, "uint8", (4, 8, 16)).read(Box((0, 0, 0), (1, 1, 1)))
    with pytest.raises(BadInput, match="number of a mip"):
        Volume(volume.url, "fine", "precomputed", EXTENT, "uint8", (4, 8, 16)).read(Box((0, 0, 0), (1, 1, 1)))
    info = json.loads((tmp_path / "v" / "info").read_text())
    (tmp_path / "v" / "info").write_text(json.dumps(info | {"num_channels": 3}))
    with pytest.raises(BadInput, match="one channel"):
        open_volume(str(tmp_path / "v"))


def test_a_dtype_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="precomputed stores uint8"):
        created(tmp_path / "v", dtype="float64")


def test_no_info_file_is_one_clear_refusal(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has an info file"):
        open_volume(f"precomputed://{tmp_path / 'nowhere'}")
