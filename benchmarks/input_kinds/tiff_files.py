"""TIFF files, folders of slices, and folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from benchmarks.input_kinds.case import SIZE_NM, VOLUME, Case, Made, in_order

_SET = "OME-TIFF of several files"
_WIDE = VOLUME.astype(np.uint16) * 257


def stack(folder: Path, array: Any = None, name: str = "a.tif", truth: Any = None, **how: Any) -> Made:
    """One file."""
    stored = VOLUME if array is None else array
    how.setdefault("photometric", "minisblack")
    tifffile.imwrite(folder / name, stored, **how)
    return Made(str(folder / name), stored if truth is None else truth)


def slices(folder: Path, names: Sequence[str] | None = None, each: Callable[[int], Any] | None = None) -> Made:
    """A folder of slices; ``each`` gives the keywords of a slice by its number."""
    for z, plane in enumerate(VOLUME):
        name = f"s{z}.tif" if names is None else names[z]
        tifffile.imwrite(folder / name, plane, **{"photometric": "minisblack", **(each(z) if each else {})})
    return Made(str(folder), VOLUME)


def _pages(folder: Path, each: Callable[[int], dict[str, Any]], truth: Any = None) -> Made:
    """One file whose pages are written one by one."""
    with tifffile.TiffWriter(folder / "a.tif") as file:
        for z, plane in enumerate(VOLUME):
            how = {"photometric": "minisblack", "metadata": None, **each(z)}
            file.write(how.pop("plane", plane), contiguous=False, **how)
    return Made(str(folder / "a.tif"), truth)


def _every_other(z: int) -> dict[str, Any]:
    return {"compression": "lzw"} if z % 2 else {}


def _odd(z: int, **how: Any) -> Callable[[int], dict[str, Any]]:
    return lambda page: how if page == z else {}


def _inverted(folder: Path, dtype: Any) -> Made:
    stored = VOLUME.astype(dtype)
    truth = np.iinfo(dtype).max - stored
    return Made(stack(folder, stored, photometric="miniswhite").address, truth, noted="nvert")


def _ome(folder: Path, axes: str) -> Made:
    array = in_order(axes.lower())
    metadata = {"axes": axes} | {f"PhysicalSize{a}": s / 1e3 for a, s in zip("ZYX", SIZE_NM, strict=True)}
    made = stack(folder, array, "a.ome.tif", VOLUME, metadata=metadata)
    return Made(made.address, VOLUME, size_nm=SIZE_NM)


def _ome_set(folder: Path, open_by: str, missing: bool = False) -> Made:
    """A set of one file a slice, whose names are not in the order of z."""
    order = [4, 2, 0, 1, 3, 8, 7, 6, 5]
    data = "".join(
        f'<TiffData FirstZ="{z}" FirstC="0" FirstT="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="p{order[z]}.ome.tif">urn:uuid:00000000-0000-0000-0000-00000000000{order[z]}</UUID></TiffData>'
        for z in range(len(VOLUME))
    )
    z, y, x = VOLUME.shape
    for number, name in enumerate(order):
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:00000000-0000-0000-0000-00000000000{name}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYZCT" Type="uint8" SizeX="{x}" SizeY="{y}" SizeZ="{z}" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"p{name}.ome.tif", VOLUME[number], description=xml, metadata=None)
    if missing:
        (folder / "p7.ome.tif").unlink()
    return Made(str(folder / open_by) if open_by else str(folder))


def _imagej(folder: Path, size: Any = SIZE_NM, resolution: Any = None, **metadata: Any) -> Made:
    z, y, x = SIZE_NM
    found = {"axes": "ZYX", "spacing": z / 1e3, "unit": "um", **metadata}
    made = stack(folder, imagej=True, resolution=resolution or (1e3 / x, 1e3 / y), metadata=found)
    return Made(made.address, VOLUME, size_nm=size, unsized=size is None)


def _pyramid(folder: Path) -> Made:
    with tifffile.TiffWriter(folder / "a.tif") as file:
        file.write(VOLUME, subifds=1, tile=(16, 16), photometric="minisblack")
        file.write(VOLUME[:, ::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
    return Made(str(folder / "a.tif"))


def _thumbnail(folder: Path) -> Made:
    with tifffile.TiffWriter(folder / "a.tif") as file:
        file.write(VOLUME, photometric="minisblack", metadata=None)
        file.write(VOLUME[0, ::4, ::4], subfiletype=1, photometric="minisblack", metadata=None)
    return Made(str(folder / "a.tif"))


def _palette(folder: Path) -> Made:
    colours = np.tile(np.linspace(65535, 0, 256).astype(np.uint16), (3, 1))
    return stack(folder, photometric="palette", colormap=colours)


def _cut(folder: Path, **how: Any) -> Made:
    made = stack(folder, **how)
    path = Path(made.address)
    path.write_bytes(path.read_bytes()[:-3000])
    return made


def _files(folder: Path, more: dict[str, bytes], names: Sequence[str] | None = None) -> Made:
    made = slices(folder, names)
    for name, content in more.items():
        (folder / name).write_bytes(content)
    return made


def _twins(folder: Path, other: str) -> Made:
    """Two files of every slice; ``other`` with {} for its number."""
    made = slices(folder)
    for z in range(len(VOLUME)):
        tifffile.imwrite(folder / other.format(z), VOLUME[z, ::-1], photometric="minisblack")
    return made


def _gap(folder: Path) -> Made:
    names = [f"s{z if z < 4 else z + 1:04d}.tif" for z in range(len(VOLUME))]
    return Made(slices(folder, names).address, VOLUME, noted="4")


def _pictures(folder: Path, ending: str) -> Made:
    write: Any = {"png": imagecodecs.png_encode, "bmp": imagecodecs.bmp_encode}[ending]
    for z, plane in enumerate(VOLUME):
        (folder / f"s{z}.{ending}").write_bytes(write(np.ascontiguousarray(plane)))
    return Made(str(folder))


def _jpegs(folder: Path) -> Made:
    data = [imagecodecs.jpeg_encode(np.ascontiguousarray(plane), level=95) for plane in VOLUME]
    for z, encoded in enumerate(data):
        (folder / f"s{z}.jpg").write_bytes(encoded)
    return Made(str(folder), np.stack([imagecodecs.jpeg_decode(encoded) for encoded in data]))


def cases() -> list[Case]:
    """All of them."""
    return [*_layouts(), *_sets(), *_metadata(), *_folders()]


def _layouts() -> list[Case]:
    layouts: dict[str, Any] = {
        "contiguous": {},
        "big endian": {"array": _WIDE, "byteorder": ">"},
        "BigTIFF": {"bigtiff": True},
        "deflate, predictor": {"compression": "zlib", "predictor": True},
        "LZW": {"compression": "lzw"},
        "zstd tiles": {"compression": "zstd", "tile": (16, 16)},
        "PackBits strips": {"compression": "packbits", "rowsperstrip": 5},
        "float, predictor": {"array": _WIDE.astype(np.float32), "compression": "zlib", "predictor": 3},
        "int16": {"array": VOLUME.astype(np.int16) - 100},
        "axes of length 1": {"array": VOLUME[:, None, :, :, None], "truth": VOLUME, "metadata": {"axes": "ZCYXS"}},
        "frames for slices": {"metadata": {"axes": "TYX"}},
    }
    found = [Case("TIFF layouts", name, partial(stack, **how)) for name, how in layouts.items()]
    refused: dict[str, Any] = {
        "two channels": {"array": np.stack([VOLUME] * 2, 1), "metadata": {"axes": "ZCYX"}, "imagej": True},
        "three colours": {"array": np.stack([VOLUME] * 3, -1), "photometric": "rgb"},
        "complex": {"array": VOLUME.astype(np.complex64)},
    }
    found += [Case("TIFF of something else", name, partial(stack, **how), "refused") for name, how in refused.items()]
    for z in (1, 4, len(VOLUME) - 1):
        at = f"page {z}"
        found += [
            Case("TIFF pages", f"{at} compressed", partial(_pages, each=_odd(z, compression="zlib"), truth=VOLUME)),
            Case("TIFF pages", f"{at} of strips", partial(_pages, each=_odd(z, rowsperstrip=3), truth=VOLUME)),
            Case(
                "TIFF pages", f"{at} of tiles", partial(_pages, each=_odd(z, tile=(16, 16)), truth=VOLUME),
                "right or refused",
            ),
            Case("TIFF pages", f"{at} smaller", partial(_pages, each=_odd(z, plane=VOLUME[0, :9])), "refused"),
            Case("TIFF pages", f"{at} uint16", partial(_pages, each=_odd(z, plane=_WIDE[0])), "refused"),
            Case("TIFF pages", f"{at} int8", partial(_pages, each=_odd(z, plane=VOLUME[0].view("i1"))), "refused"),
            Case(
                "TIFF pages", f"{at} in colour",
                partial(_pages, each=_odd(z, plane=np.stack([VOLUME[0]] * 3, -1), photometric="rgb")), "refused",
            ),
        ]  # fmt: skip
    one_white = VOLUME.copy()
    one_white[4] = 255 - one_white[4]
    return [
        *found,
        Case("TIFF MinIsWhite", "uint8", partial(_inverted, dtype=np.uint8)),
        Case("TIFF MinIsWhite", "uint16", partial(_inverted, dtype=np.uint16)),
        Case(
            "TIFF MinIsWhite", "one page", partial(_pages, each=_odd(4, photometric="miniswhite"), truth=one_white),
            "right or refused",
        ),
        Case("TIFF pyramids", "SubIFDs", _pyramid),
        Case("TIFF pyramids", "a thumbnail at the end", _thumbnail, "right or refused"),
        Case("TIFF palette", "falling", _palette, "refused"),
        Case("TIFF torn", "contiguous", _cut, "refused"),
        Case("TIFF torn", "compressed", partial(_cut, compression="zlib"), "refused"),
        Case("TIFF torn", "no TIFF at all", lambda f: Made(str(_written(f / "a.tif", b"hello"))), "refused"),
        Case("TIFF torn", "empty", lambda f: Made(str(_written(f / "a.tif", b""))), "refused"),
    ]  # fmt: skip


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _sets() -> list[Case]:
    orders = ("ZYX", "TCZYX", "ZCYX")
    return [
        *(Case("OME-TIFF", axes, partial(_ome, axes=axes)) for axes in orders),
        Case(_SET, "by its first", partial(_ome_set, open_by="p0.ome.tif")),
        Case(_SET, "by another", partial(_ome_set, open_by="p5.ome.tif")),
        Case(_SET, "by the folder", partial(_ome_set, open_by="")),
        Case(_SET, "one is gone", partial(_ome_set, open_by="p0.ome.tif", missing=True), "refused"),
        Case(_SET, "folder, one is gone", partial(_ome_set, open_by="", missing=True), "refused"),
    ]  # fmt: skip


def _metadata() -> list[Case]:
    z, y, x = SIZE_NM
    orders = [*map("".join, permutations("ZYX"))]
    return [
        Case("ImageJ size", "um", _imagej),
        Case("ImageJ size", "\\u00B5m", partial(_imagej, unit="\\u00B5m")),
        Case("ImageJ size", "zunit nm", partial(_imagej, spacing=z, zunit="nm")),
        Case("ImageJ size", "yunit nm", partial(_imagej, resolution=(1e3 / x, 1 / y), yunit="nm")),
        Case("ImageJ size", "pixel", partial(_imagej, size=None, unit="pixel")),
        Case("ImageJ size", "no spacing", partial(_imagej, size=None, spacing=0), "right or refused"),
        Case(
            "TIFF size", "72 dpi",
            lambda f: Made(stack(f, resolution=(72, 72), resolutionunit="inch").address, VOLUME, unsized=True),
        ),
        *(
            Case(
                "TIFF axes", axes,
                partial(_axes, axes=axes), "right" if axes == "ZYX" else "right or refused",
            )
            for axes in orders
        ),
    ]  # fmt: skip


def _axes(folder: Path, axes: str) -> Made:
    return stack(folder, in_order(axes.lower()), truth=VOLUME, metadata={"axes": axes})


def _folders() -> list[Case]:
    junk = {".DS_Store": b"x", "Thumbs.db": b"x", "._s0.tif": b"x", "notes.txt": b"x", "list.csv": b"1"}
    decimals = [f"s_{z * 0.5:.1f}um.tif" for z in range(len(VOLUME))]
    return [
        Case("folders of slices", "natural order", slices),
        Case("folders of slices", "zeros in front", partial(slices, names=[f"{z:05}.tif" for z in range(9)])),
        Case("folders of slices", "capitals", partial(slices, names=[f"S{z}.TIF" for z in range(9)])),
        Case("folders of slices", "decimals", partial(slices, names=decimals), "right or refused"),
        Case("folders of slices", "other files", partial(_files, more=junk)),
        Case("folders of slices", "mixed compression", partial(slices, each=_every_other)),
        Case("folders of slices", "mixed byte order", partial(slices, each=lambda z: {"byteorder": "<>"[z % 2]})),
        Case("folders of slices", "a gap", _gap),
        Case("folders of slices", "two channels", partial(_twins, other="c1_s{}.tif"), "refused"),
        Case("folders of slices", "two numbers the same", partial(_twins, other="s{:04}.tif"), "refused"),
        Case("folders of slices", "an empty file", partial(_files, more={"s9.tif": b""}), "refused"),
        Case("folders of slices", "one of 16 bit", _one_wide, "refused"),
        Case("folders of pictures", "PNG", partial(_pictures, ending="png")),
        Case("folders of pictures", "BMP", partial(_pictures, ending="bmp")),
        Case("folders of pictures", "JPEG", _jpegs),
        Case("folders of pictures", "PNG and TIFF", _png_and_tiff, "refused"),
    ]  # fmt: skip


def _one_wide(folder: Path) -> Made:
    made = slices(folder)
    tifffile.imwrite(folder / "s7.tif", _WIDE[7])
    return made


def _png_and_tiff(folder: Path) -> Made:
    slices(folder)
    return _pictures(folder, "png")
