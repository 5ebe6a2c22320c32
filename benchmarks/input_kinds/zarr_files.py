"""Zarr v2 and v3, OME-Zarr and N5."""

from __future__ import annotations

import gzip
import json
import struct
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from benchmarks.input_kinds.case import OFFSET_NM, SIZE_NM, VOLUME, Case, Made, by_order, in_order

ORDERS = [*map("".join, permutations("zyx")), "cxyz", "tczyx", "xyzc", "zycx", "yctxz"]


def ome(folder: Path, order: str, version: str = "0.5", **more: Any) -> Made:
    """An OME-Zarr image whose axes stand in this order."""
    array, old = in_order(order), version != "0.5"
    unit, factor = more.get("unit", "nanometer"), more.get("factor", 1.0)
    kinds = {"c": "channel", "t": "time"}
    axes: list[Any] = [
        {"name": n, "type": kinds.get(n, "space"), **({"unit": unit} if n in "zyx" and unit else {})} for n in order
    ]
    transforms = more.get("transforms") or [
        {"type": "scale", "scale": by_order(order, [s / factor for s in SIZE_NM])},
        {"type": "translation", "translation": by_order(order, [o / factor for o in OFFSET_NM], 0.0)},
    ]
    image = {
        "version": version,
        "axes": list(order) if version == "0.3" else axes,
        "datasets": [{"path": "0", "coordinateTransformations": transforms}],
        **more.get("image", {}),
    }
    attributes: Any = {"multiscales": [image]} if old else {"ome": {"version": version, "multiscales": [image]}}
    path = folder / "image.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3, attributes=attributes)
    group.create_array("0", shape=array.shape, chunks=tuple(min(n, 8) for n in array.shape), dtype="u1")[...] = array
    if version == "0.3":
        return Made(str(path))
    return Made(str(path), size_nm=more.get("size", SIZE_NM), offset_nm=more.get("offset", OFFSET_NM))


def plain(
    folder: Path, array: Any = None, attributes: dict[str, Any] | None = None, name: str = "a.zarr", **how: Any
) -> Path:
    """A zarr array that is no image."""
    stored = VOLUME if array is None else array
    how.setdefault("chunks", [min(n, 8) for n in stored.shape])
    zarr.create_array(
        folder / name, shape=stored.shape, dtype=how.pop("dtype", stored.dtype), attributes=attributes, **how
    )[...] = stored
    return folder / name


def _dimension_names(folder: Path, order: str) -> Made:
    return Made(str(plain(folder, in_order(order), dimension_names=list(order))))


def _array_dimensions(folder: Path, order: str, zarr_format: int) -> Made:
    how: Any = {"zarr_format": zarr_format}
    return Made(str(plain(folder, in_order(order), {"_ARRAY_DIMENSIONS": list(order)}, **how)))


def _names(folder: Path, names: list[str], array: Any = None) -> Made:
    return Made(str(plain(folder, array, dimension_names=names)))


def _attributes(folder: Path, attributes: dict[str, Any], order: str = "zyx", **expected: Any) -> Made:
    return Made(str(plain(folder, in_order(order), attributes)), **expected)


def _on_group(folder: Path, attributes: dict[str, Any]) -> Made:
    zarr.open_group(folder / "g.zarr", mode="w", attributes=attributes)
    plain(folder / "g.zarr", name="raw")
    return Made(str(folder / "g.zarr" / "raw"))


def _v2(folder: Path, **how: Any) -> Made:
    array = how.pop("array", VOLUME)
    return Made(str(plain(folder, array, zarr_format=2, **how)), array)


def _v3(folder: Path, array: Any = None, **how: Any) -> Made:
    return Made(str(plain(folder, array, zarr_format=3, **how)), VOLUME if array is None else array)


def _fill(folder: Path, zarr_format: int) -> Made:
    how: Any = {"zarr_format": zarr_format, "fill_value": 7}
    array = zarr.create_array(folder / "a.zarr", shape=VOLUME.shape, chunks=(4, 8, 8), dtype="u1", **how)
    array[:4, :8] = VOLUME[:4, :8]
    truth = np.full_like(VOLUME, 7)
    truth[:4, :8] = VOLUME[:4, :8]
    return Made(str(folder / "a.zarr"), truth)


def _zstd_frames(folder: Path, how: str) -> Made:
    """Chunks as other writers of zstd leave them: no content size in the frame, or two frames behind one another."""
    import zstandard

    path = plain(folder, chunks=(9, 22, 31), compressors=ZstdCodec(level=1))
    raw = VOLUME.tobytes()
    if how == "no size":
        data = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    else:
        data = b"".join(zstandard.ZstdCompressor().compress(part) for part in (raw[:1000], raw[1000:]))
    next(p for p in (path / "c").rglob("*") if p.is_file()).write_bytes(data)
    return Made(str(path))


def _bioformats(folder: Path, series: int) -> Made:
    zarr.open_group(folder / "b.zarr", mode="w", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for number in range(series):
        inner = folder / "b.zarr" / str(number)
        ome(folder / f"made{number}", "tczyx", "0.4")
        (folder / f"made{number}" / "image.zarr").rename(inner)
    zarr.open_group(folder / "b.zarr" / "OME", mode="w", zarr_format=2, attributes={"series": ["0"]})
    return Made(str(folder / "b.zarr"), size_nm=SIZE_NM)


def _address(folder: Path, name: str, address: str) -> Made:
    """``address`` has {} for the path."""
    path = plain(folder, name=name)
    return Made(address.format(path))


def _empty(folder: Path) -> Made:
    zarr.create_array(folder / "a.zarr", shape=VOLUME.shape, chunks=(4, 8, 8), dtype="u1")
    return Made(str(folder / "a.zarr"), np.zeros_like(VOLUME))


def n5(folder: Path, compression: str = "gzip", attributes: dict[str, Any] | None = None, expected: Any = None) -> Made:
    """An N5 dataset written by hand: x y z dimensions, big-endian blocks with a header."""
    shape, block = VOLUME.shape[::-1], (16, 16, 8)
    path = folder / "v.n5" / "raw"
    path.mkdir(parents=True)
    (folder / "v.n5" / "attributes.json").write_text(json.dumps({"n5": "2.5.0"}))
    described = {
        "dimensions": shape, "blockSize": block, "dataType": "uint8", "compression": {"type": compression},
        **(attributes or {}),
    }  # fmt: skip
    (path / "attributes.json").write_text(json.dumps(described))
    for index in np.ndindex(*(-(-n // b) for n, b in zip(shape, block, strict=True))):
        part = VOLUME[tuple(slice(i * b, (i + 1) * b) for i, b in zip(index[::-1], block[::-1], strict=True))]
        data = part.tobytes()
        header = struct.pack(">HH3I", 0, 3, *part.shape[::-1])
        target = path / "/".join(map(str, index))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(header + (gzip.compress(data) if compression == "gzip" else data))
    return Made(str(path), **(expected or {}))


def _scaled(*transforms: dict[str, Any]) -> Any:
    return partial(ome, order="zyx", transforms=list(transforms))


def _scale(values: Any) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def _shift() -> dict[str, Any]:
    return {"type": "translation", "translation": list(OFFSET_NM)}


def cases() -> list[Case]:
    """All of them."""
    return [*_axes(), *_places(), *_codecs(), *_roots()]


def _axes() -> list[Case]:
    found = [Case("OME-Zarr 0.5 axes", order, partial(ome, order=order)) for order in ORDERS]
    found += [Case("OME-Zarr 0.4 axes", order, partial(ome, order=order, version="0.4")) for order in ORDERS]
    found += [Case("OME-Zarr 0.3 axes", order, partial(ome, order=order, version="0.3")) for order in ("zyx", "tcxyz")]
    found += [Case("zarr dimension_names", order, partial(_dimension_names, order=order)) for order in ORDERS]
    for zarr_format in (2, 3):
        kind = f"zarr v{zarr_format} _ARRAY_DIMENSIONS"
        found += [
            Case(kind, order, partial(_array_dimensions, order=order, zarr_format=zarr_format)) for order in ORDERS
        ]
    two = np.stack([VOLUME, VOLUME[::-1]])
    found += [
        Case("zarr other axes", "two channels", partial(_names, names=list("czyx"), array=two), "refused"),
        Case("zarr other axes", "two channels, no names", lambda f: Made(str(plain(f, two))), "refused"),
        Case("zarr other axes", "t, y, x", partial(_names, names=list("tyx")), "refused"),
        Case("zarr other axes", "c, y, x", partial(_names, names=list("cyx")), "refused"),
        Case("zarr other axes", "time, lat, lon", partial(_names, names=["time", "lat", "lon"]), "refused"),
        Case("zarr other axes", "Z, Y, X", partial(_names, names=list("ZYX"))),
        Case("zarr other axes", "dim_0, dim_1, dim_2", partial(_names, names=["dim_0", "dim_1", "dim_2"])),
        Case("zarr other axes", "trailing 1", lambda f: Made(str(plain(f, VOLUME[..., None])))),
        Case("zarr other axes", "two axes", lambda f: Made(str(plain(f, VOLUME[0]))), "refused"),
        Case(
            "zarr other axes", "funlib axis_names x y z",
            partial(_attributes, attributes={"axis_names": ["x", "y", "z"]}, order="xyz"),
        ),
        Case(
            "zarr other axes", "funlib axis_names c^ z y x",
            partial(_attributes, attributes={"axis_names": ["c^", "z", "y", "x"]}, order="czyx"), "right or refused",
        ),
    ]  # fmt: skip
    return found


def _places() -> list[Case]:
    sized: Any = {"size_nm": SIZE_NM, "offset_nm": OFFSET_NM}
    x_first = {"resolution": list(SIZE_NM[::-1]), "offset": list(OFFSET_NM[::-1]), "_ARRAY_DIMENSIONS": list("xyz")}
    cosem = {"transform": {"axes": list("zyx"), "scale": SIZE_NM, "translate": OFFSET_NM, "units": ["nm", "nm", "nm"]}}
    found = [
        ("resolution, offset", partial(_attributes, attributes={"resolution": SIZE_NM, "offset": OFFSET_NM}, **sized)),
        ("voxel_size", partial(_attributes, attributes={"voxel_size": SIZE_NM, "offset": OFFSET_NM}, **sized)),
        ("resolution with names x y z", partial(_attributes, attributes=x_first, order="xyz", **sized)),
        (
            "voxel_size in micrometres",
            partial(
                _attributes,
                attributes={"voxel_size": [s / 1e3 for s in SIZE_NM], "units": ["um", "um", "um"]},
                size_nm=SIZE_NM,
            ),
        ),
        ("COSEM transform", partial(_attributes, attributes=cosem, **sized)),
        ("two scales", _scaled(_scale([15, 4, 2]), _scale([2, 2, 2]), _shift())),
        ("scale on the image", partial(
            ome, order="zyx", transforms=[_scale([1, 1, 1])], image={"coordinateTransformations": [_scale(SIZE_NM)]},
            offset=None)),
        ("micrometer", partial(ome, order="xyz", unit="micrometer", factor=1e3)),
        ("angstrom", partial(ome, order="zyx", unit="angstrom", factor=0.1)),
    ]  # fmt: skip
    cases = [Case("zarr voxel size", name, make) for name, make in found]
    cases += [
        Case(
            "zarr voxel size",
            "no unit",
            partial(ome, order="zyx", unit=None, size=None, offset=None),
            "right or refused",
        ),
        Case(
            "zarr voxel size",
            "unit pixel",
            partial(ome, order="zyx", unit="pixel", size=None, offset=None),
            "right or refused",
        ),
    ]
    odd = {
        "negative scale": _scale([-30, 8, 4]),
        "zero scale": _scale([0, 8, 4]),
        "scale of two": _scale([8, 4]),
        "rotation": {"type": "rotation", "rotation": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]},
        "affine": {"type": "affine", "affine": [[30, 0, 1, 0], [0, 8, 0, 0], [0, 0, 4, 0]]},
        "scale by a path": {"type": "scale", "path": "there"},
        "scale of words": {"type": "scale", "scale": ["a", "b", "c"]},
    }
    cases += [Case("zarr odd transform", name, _scaled(transform), "refused") for name, transform in odd.items()]
    attributes = {"resolution": [0, 8, 4], "voxel_size": [-30, 8, 4], "pixelResolution": {"dimensions": ["a"]}}
    cases += [
        Case("zarr odd transform", f"{k} {v}", partial(_attributes, attributes={k: v}), "right or refused")
        for k, v in attributes.items()
    ]
    return cases


def _codecs() -> list[Case]:
    wide = (VOLUME.astype(">u2") * 257)[:]
    v2: dict[str, Any] = {
        "blosc lz4": {"compressors": numcodecs.Blosc("lz4")},
        "blosc zstd bitshuffle": {"compressors": numcodecs.Blosc("zstd", shuffle=2), "array": wide.astype("<u2")},
        "zlib": {"compressors": numcodecs.Zlib()},
        "gzip": {"compressors": numcodecs.GZip()},
        "bz2": {"compressors": numcodecs.BZ2()},
        "lzma": {"compressors": numcodecs.LZMA()},
        "lz4": {"compressors": numcodecs.LZ4()},
        "zstd": {"compressors": numcodecs.Zstd()},
        "delta": {"filters": [numcodecs.Delta("u1")], "compressors": numcodecs.Zstd()},
        "shuffle": {"filters": [numcodecs.Shuffle(2)], "array": wide.astype("<u2")},
        "Fortran order": {"order": "F"},
        "big endian": {"array": wide, "dtype": ">u2"},
        "none": {"compressors": None},
    }
    v3: dict[str, Any] = {
        "gzip": {"compressors": GzipCodec()},
        "zstd crc32c": {"compressors": [ZstdCodec(), Crc32cCodec()]},
        "transpose": {"filters": [TransposeCodec(order=(2, 0, 1))]},
        "big endian": {"array": wide.astype("<u2"), "serializer": BytesCodec(endian="big")},
        "shards": {"shards": (16, 16, 16), "chunks": (8, 8, 8)},
        "shards in shards": {
            "chunks": (16, 16, 16),
            "serializer": ShardingCodec(chunk_shape=(8, 8, 8), codecs=[BytesCodec(), ZstdCodec()]),
            "compressors": None,
        },
        "none": {"compressors": None},
        "keys of v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    }
    found = [Case("zarr v2 codecs", name, partial(_v2, **how)) for name, how in v2.items()]
    found += [Case("zarr v3 codecs", name, partial(_v3, **how)) for name, how in v3.items()]
    found += [Case("zarr fill value", f"v{n}, 7", partial(_fill, zarr_format=n)) for n in (2, 3)]
    found += [
        Case("zarr v3 codecs", f"zstd frames, {how}", partial(_zstd_frames, how=how)) for how in ("no size", "two")
    ]
    return found


def _roots() -> list[Case]:
    resolution = {"resolution": list(SIZE_NM[::-1]), "offset": list(OFFSET_NM[::-1])}
    pixel = {"pixelResolution": {"dimensions": [s / 1e3 for s in SIZE_NM[::-1]], "unit": "um"}}
    return [
        Case("zarr roots", "bioformats2raw of one series", partial(_bioformats, series=1), "right or refused"),
        Case("zarr roots", "bioformats2raw of two series", partial(_bioformats, series=2), "refused"),
        Case("addresses", "a[1]", partial(_address, name="a[1]", address="{}")),
        Case("addresses", "a[0:2,:,:]", partial(_address, name="a[0:2,:,:]", address="{}")),
        Case("addresses", "zarr://", partial(_address, name="a", address="zarr://{}")),
        Case("addresses", "zarr://file://", partial(_address, name="a", address="zarr://file://{}")),
        Case("addresses", "file://", partial(_address, name="a", address="file://{}")),
        Case("addresses", "a slash at the end", partial(_address, name="a", address="{}/")),
        Case("addresses", "a name with a colon", partial(_address, name="a:b.zarr", address="{}")),
        Case("addresses", "a name of a TIFF", partial(_address, name="a.tif", address="{}"), "right or refused"),
        Case("addresses", "a name of HDF5", partial(_address, name="a.h5", address="{}"), "right or refused"),
        Case("addresses", "nothing there", lambda f: Made(str(f / "none.zarr")), "refused"),
        Case("addresses", "an empty folder", lambda f: Made(str(f)), "refused"),
        Case("nothing in it", "zarr without a chunk", _empty, "right or refused"),
        Case("N5", "gzip", n5),
        Case("N5", "raw", partial(n5, compression="raw")),
        Case("N5", "resolution", partial(n5, attributes=resolution, expected={"size_nm": SIZE_NM})),
        Case("N5", "pixelResolution", partial(n5, attributes=pixel, expected={"size_nm": SIZE_NM})),
        Case("N5", "n5://", lambda f: Made("n5://" + n5(f).address)),
        Case("N5", "unknown compression", partial(n5, compression="jpeg"), "refused"),
    ]
