"""Chunks written and read as files are the chunks that zarr writes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, GzipCodec, ZstdCodec

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.formats import ome_zarr
from pipeline.store.formats.chunk_codecs import content_size
from pipeline.store.formats.chunk_files import ChunkFiles
from pipeline.store.volume import open_volume

SHAPE, CHUNKS = (10, 12, 14), (4, 5, 6)


def stored(folder: Path, dtype: str = "uint32", **changes: Any) -> zarr.Array[Any]:
    layout: dict[str, Any] = {"shape": SHAPE, "chunks": CHUNKS, "compressors": ZstdCodec(level=1), "fill_value": 0}
    return zarr.create_array(str(folder), dtype=dtype, **{**layout, **changes})


def files_of(array: zarr.Array[Any]) -> ChunkFiles:
    files = ome_zarr.ZarrHandle(array)._files
    assert files is not None
    return files


def values(dtype: str) -> np.ndarray[Any, Any]:
    found = np.random.default_rng(3).integers(0, 3, SHAPE).astype(dtype)
    found[:4] = 0
    return found


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint32", "uint64", "int16", "float32"])
def test_zarr_reads_what_was_written_as_files_and_the_other_way_round(tmp_path: Path, dtype: str) -> None:
    ours, theirs = stored(tmp_path / "ours", dtype), stored(tmp_path / "theirs", dtype)
    files_of(ours).write(Box.of_shape(SHAPE), values(dtype))
    theirs[...] = values(dtype)
    np.testing.assert_array_equal(ours[...], values(dtype))
    found = files_of(theirs).read(Box.of_shape(SHAPE))
    np.testing.assert_array_equal(found, values(dtype))
    assert found.dtype == np.dtype(dtype)
    assert found.flags.writeable
    names = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in tmp_path.iterdir()]
    assert names[0] == names[1]  # chunks of zeros are stored by neither


boxes = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE))


@given(boxes)
@settings(max_examples=60, deadline=None)
def test_any_box_is_read(tmp_path_factory: pytest.TempPathFactory, spans: tuple[tuple[int, int], ...]) -> None:
    folder = tmp_path_factory.getbasetemp() / "chunks-of-any-box"
    if not folder.exists():
        stored(folder)[...] = values("uint32")
    (z, c), (y, b), (x, a) = spans
    box = Box((z, y, x), (max(c, z + 1), max(b, y + 1), max(a, x + 1)))
    files = files_of(zarr.open_array(str(folder)))
    np.testing.assert_array_equal(files.read(box), values("uint32")[box.slices()])


def test_a_chunk_of_zeros_takes_away_what_was_there(tmp_path: Path) -> None:
    array = stored(tmp_path / "a")
    first = Box((0, 0, 0), CHUNKS)
    files_of(array).write(first, np.ones(CHUNKS, np.uint32))
    assert (tmp_path / "a" / "c" / "0" / "0" / "0").exists()
    files_of(array).write(first, np.zeros(CHUNKS, np.uint32))
    assert not (tmp_path / "a" / "c" / "0" / "0" / "0").exists()
    assert not files_of(array).read(first).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"compressors": GzipCodec()},
        {"compressors": None},
        {"serializer": BytesCodec(endian="big")},
        {"fill_value": 1},
        {"chunks": (2, 5, 6), "shards": (4, 5, 6)},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 2, "compressors": None},
    ],
    ids=str,
)
def test_another_layout_is_left_to_zarr(tmp_path: Path, changes: dict[str, Any]) -> None:
    array = stored(tmp_path / "a", **changes)
    handle = ome_zarr.ZarrHandle(array)
    assert handle._files is None
    handle.write(Box.of_shape((4, 5, 6)), np.full((4, 5, 6), 7, np.uint32))
    assert np.all(array[:4, :5, :6] == 7)


def test_an_array_that_is_not_on_a_disk_or_has_more_axes_is_left_to_zarr(tmp_path: Path) -> None:
    memory = zarr.create_array({}, shape=SHAPE, dtype="uint8", chunks=CHUNKS, compressors=ZstdCodec(level=1))
    assert ome_zarr.ZarrHandle(memory)._files is None
    four = zarr.create_array(str(tmp_path / "4"), shape=(1, *SHAPE), dtype="uint8", chunks=(1, *CHUNKS))
    assert ome_zarr.ZarrHandle(four)._files is None


@pytest.mark.parametrize("damage", ["cut", "empty", "other size", "no zstd"])
def test_a_damaged_chunk_is_named_and_never_read_as_something_else(tmp_path: Path, damage: str) -> None:
    array = stored(tmp_path / "a")
    array[...] = 1 + np.arange(np.prod(SHAPE)).reshape(SHAPE)
    chunk = tmp_path / "a" / "c" / "1" / "1" / "1"
    whole = chunk.read_bytes()
    smaller = stored(tmp_path / "b", shape=(2, 2, 2), chunks=(2, 2, 2))
    smaller[...] = 9
    chunk.write_bytes(
        {
            "cut": whole[:-4],
            "empty": b"",
            "other size": (tmp_path / "b" / "c" / "0" / "0" / "0").read_bytes(),
            "no zstd": b"something else",
        }[damage]
    )
    volume = open_volume(str(tmp_path / "a"), (1.0, 1.0, 1.0))
    with pytest.raises(BadInput, match="must be readable"):
        volume.read(volume.box)
    assert volume.read(Box((0, 0, 0), CHUNKS)).all()


@pytest.mark.parametrize("size", [1, 200, 255, 256, 70_000, 2**17])
@pytest.mark.parametrize("checksum", [False, True])
def test_the_size_of_a_frame_is_read_from_its_header(size: int, checksum: bool) -> None:
    from numcodecs import Zstd

    assert content_size(Zstd(1, checksum).encode(np.arange(size).astype(np.uint8))) == size
