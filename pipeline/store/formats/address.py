"""One way to name an array anywhere: ``PATH_OR_URL[:dataset][[z0:z1,y0:y1,x0:x1]]``.

``PATH_OR_URL`` is a local path or an ``s3://``, ``gs://``, ``https://`` (``http://``) URL, with or without ``precomputed://``
before it. ``:dataset`` names a dataset in an HDF5 file; a node inside a zarr container is simply part of the path.
A trailing slice in square brackets crops, in voxels, z y x, half-open; an empty side is the border.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import fsspec

from pipeline.errors import BadInput

_CROP = re.compile(r"^(?P<rest>.+)\[(?P<crop>[\d\s:,-]*)\]$")
HDF5 = re.compile(r"^(?P<url>.+\.(?:h5|hdf5|hdf|he5))(?::(?P<path>.+))?$", re.IGNORECASE)
TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
# Formats of one file, told by the end of its name.
FILE_ENDINGS = {"tiff": TIFF_ENDINGS}
_SCHEMES = ("s3://", "gs://", "http://", "https://", "file://")

Span = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address: ``url`` (absolute local path or URL), ``path`` inside the container, crop spans, format."""

    url: str
    path: str
    crop: tuple[Span, Span, Span] | None
    format: str


def parse(text: str) -> Address:
    """Parse an address and find its format by looking at the store.

    Raises:
        BadInput: nothing is there, the crop is malformed or the format is not known.
    """
    rest, crop = _split_crop(text.strip())
    if rest.startswith("precomputed://"):
        return Address(absolute_url(rest.removeprefix("precomputed://")), "", crop, "precomputed")
    if match := HDF5.match(rest):
        return Address(absolute_url(match["url"]), match["path"] or "", crop, "hdf5")
    url = absolute_url(rest)
    return Address(url, "", crop, _detect(url, text))


def absolute_url(url: str) -> str:
    """A URL as it is (``file://`` stripped), a local path made absolute, without a trailing slash."""
    url = url.removeprefix("file://") if url.startswith("file://") else url
    return url.rstrip("/") if is_remote(url) else str(Path(url).expanduser().absolute())


def is_remote(url: str) -> bool:
    """True for a URL with a scheme, False for a local path."""
    return url.startswith(_SCHEMES) and not url.startswith("file://")


def exists(url: str) -> bool:
    """True when a file, folder or object stands at a local path or URL."""
    if not is_remote(url):
        return Path(url).exists()
    filesystem, path = fsspec.core.url_to_fs(url)
    return bool(filesystem.exists(path))


def join(url: str, *parts: str) -> str:
    """A path below a local path or URL."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part)])


def _detect(url: str, text: str) -> str:
    for name, endings in FILE_ENDINGS.items():
        if url.lower().endswith(endings):
            _require(url, text)
            return name
    if exists(join(url, "info")):
        return "precomputed"
    if any(exists(join(url, name)) for name in ("zarr.json", ".zarray", ".zgroup")):
        return "zarr"
    _require(url, text)
    if _holds_tiff(url):
        return "tiff"
    raise BadInput(
        text,
        "no volume is recognised there",
        "the formats are told by what is stored: zarr.json, .zarray or .zgroup (zarr), info (precomputed), "
        "*.tif (TIFF stack or folder of slices), *.h5:dataset (HDF5)",
        "Check the path, or name the array inside the container.",
    )


def _holds_tiff(url: str) -> bool:
    if is_remote(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        # A web server's folder page is not a reliable listing: slices are found on disk and in buckets.
        names = [] if url.startswith("http") else filesystem.ls(path, detail=False)
    else:
        names = [entry.name for entry in Path(url).iterdir()] if Path(url).is_dir() else []
    return any(str(name).lower().endswith(TIFF_ENDINGS) for name in names)


def _require(url: str, text: str) -> None:
    if not exists(url):
        parent = url.rsplit("/", 1)[0]
        hint = f"Its folder {parent} {'exists' if exists(parent) else 'does not exist either'}."
        raise BadInput(text, "the input must exist and be readable", "nothing is there", hint)


def _split_crop(text: str) -> tuple[str, tuple[Span, Span, Span] | None]:
    match = _CROP.match(text)
    if match is None:
        return text, None
    parts = match["crop"].split(",")
    try:
        spans = [_span(part) for part in parts]
        z, y, x = spans
    except ValueError:
        raise BadInput(
            text, "a crop is [z0:z1,y0:y1,x0:x1] in voxels", nearest="For example volume.tif[132:165,:,:]."
        ) from None
    return match["rest"], (z, y, x)


def _span(text: str) -> Span:
    start, stop = text.strip().split(":")
    return (int(start) if start.strip() else None, int(stop) if stop.strip() else None)
