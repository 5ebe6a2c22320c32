"""Frames made plane by plane are Blosc frames, and any Blosc frame is read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.formats import ome_zarr
from pipeline.store.formats.chunk_codecs import LARGEST_BLOSC, ShuffledChunks, wanted
from pipeline.store.volume import Volume, open_volume

DTYPES = ("uint16", "uint32", "uint64")
SIDE = 16
LABELS = np.repeat(np.arange(SIDE**3 // 8, dtype=np.uint64) % 5, 8).reshape((SIDE,) * 3)


def volume_of(folder: Path, dtype: str) -> Volume:
    ome_zarr.create(str(folder), (SIDE,) * 3, (SIDE,) * 3, (SIDE,) * 3, dtype, (1.0, 1.0, 1.0))
    return open_volume(str(folder))


def array_of(folder: Path) -> zarr.Array[Any]:
    return zarr.open_array(str(folder / "0"))


@given(
    st.sampled_from(DTYPES),
    st.sampled_from([(1, 1, 1), (4, 5, 6), (1, 1, 127), (1, 1, 128), (5, 6, 7), (16, 17, 18)]),
    st.integers(0, 64),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_frames_are_blosc_frames_whatever_the_values_fill(
    dtype: str, shape: tuple[int, int, int], bits: int, share: float, number: int
) -> None:
    rng = np.random.default_rng(number)
    top = 2 ** min(bits, 8 * np.dtype(dtype).itemsize) - 1
    values = rng.integers(0, top, shape, np.uint64, endpoint=True).astype(dtype)
    values[rng.random(shape) > share] = 0
    codec, found = ShuffledChunks(np.dtype(dtype)), np.full(shape, 7, dtype)
    frame = codec.encode(values)
    np.testing.assert_array_equal(np.frombuffer(Blosc().decode(frame), dtype).reshape(shape), values)
    codec.decode(frame, found)
    np.testing.assert_array_equal(found, values)
    assert codec.encode(values.astype(np.min_scalar_type(int(values.max())))) == frame


@pytest.mark.parametrize("shuffle", [Blosc.NOSHUFFLE, Blosc.SHUFFLE, Blosc.BITSHUFFLE])
@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_frames_of_others_are_read(name: str, shuffle: int) -> None:
    found = np.empty_like(LABELS)
    ShuffledChunks(LABELS.dtype).decode(Blosc(name, 5, shuffle).encode(LABELS), found)
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pipeline", ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"])
def test_zarr_reads_labels_and_writes_such_as_we_read(tmp_path: Path, dtype: str, pipeline: str) -> None:
    pytest.importorskip(pipeline.partition(".")[0])
    ours, theirs = volume_of(tmp_path / "ours", dtype), volume_of(tmp_path / "theirs", dtype)
    ours.write(ours.box, LABELS.astype(np.uint8))
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        np.testing.assert_array_equal(array_of(tmp_path / "ours")[...], LABELS)
        array_of(tmp_path / "theirs")[...] = LABELS.astype(dtype)
    np.testing.assert_array_equal(theirs.read(theirs.box), LABELS)
    assert ours.read(ours.box).dtype == np.dtype(dtype)


def test_labels_are_blosc_and_probabilities_zstd() -> None:
    chunk = (128, 128, 128)
    assert [wanted(dtype, chunk) for dtype in (*DTYPES, "uint8", "int32", "float32")] == ["blosc"] * 3 + ["zstd"] * 3
    assert wanted("uint64", (1, 1, LARGEST_BLOSC // 8)) == "blosc"
    assert wanted("uint64", (1, 1, LARGEST_BLOSC // 8 + 1)) == "zstd"


def test_ids_compress_better_than_by_zstd_alone(tmp_path: Path) -> None:
    codec = ShuffledChunks(LABELS.dtype)
    assert len(codec.encode(LABELS)) < len(Blosc("zstd", 1, Blosc.NOSHUFFLE).encode(LABELS))


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "other size", "zeroed end", "no Blosc", "short plane"])
def test_a_damaged_frame_is_named_and_never_read_as_something_else(tmp_path: Path, damage: str) -> None:
    volume = volume_of(tmp_path / "a", "uint32")
    volume.write(volume.box, LABELS.astype(np.uint32) + np.uint32(1000 * (damage == "zeroed end")))
    codec = ShuffledChunks(np.dtype("uint32"))
    chunk = tmp_path / "a" / "0" / "c" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    short = bytearray(codec.encode(np.ones(SIDE**3 - 1, np.uint32)))
    short[4:12] = struct.pack("<2I", 4 * SIDE**3, 4 * SIDE**3)
    chunk.write_bytes(
        {
            "cut": whole[:-4],
            "empty": b"",
            "header": whole[:16],
            "other size": codec.encode(np.ones((8, 8, 8), np.uint32)),
            "zeroed end": whole[:60] + bytes(len(whole) - 60),
            "no Blosc": b"something else, that is longer than a header",
            "short plane": bytes(short),
        }[damage]
    )
    with pytest.raises(BadInput, match="must be readable"):
        volume.read(volume.box)


def test_wider_values_than_are_stored_are_cut_as_zarr_does(tmp_path: Path) -> None:
    volume = volume_of(tmp_path / "a", "uint16")
    volume.write(volume.box, LABELS + np.uint64(2**16))
    np.testing.assert_array_equal(volume.read(volume.box), LABELS)


def test_an_array_of_blosc_that_is_not_shuffled_zstd_is_left_to_zarr(tmp_path: Path) -> None:
    zarr.create_array(
        str(tmp_path / "a"), shape=(4, 4, 4), chunks=(4, 4, 4), dtype="uint32", compressors=BloscCodec(cname="lz4")
    )
    assert ome_zarr.open_handle(str(tmp_path / "a"), "")._files is None


def test_the_last_chunk_is_stored_whole_from_narrow_values_too(tmp_path: Path) -> None:
    ome_zarr.create(str(tmp_path / "a"), (5, 6, 7), (5, 6, 7), (4, 4, 4), "uint64", (1.0, 1.0, 1.0))
    volume = open_volume(str(tmp_path / "a"))
    values = np.arange(1, 211, dtype=np.uint8).reshape(5, 6, 7)
    volume.write(volume.box, values)
    np.testing.assert_array_equal(array_of(tmp_path / "a")[...], values)
    part = Box((3, 3, 3), (5, 6, 7))
    np.testing.assert_array_equal(volume.read(part), values[part.slices()])
