"""HDF5 as ilastik, Fiji, netCDF and people's scripts write it."""

from __future__ import annotations

import json
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.input_kinds.case import OFFSET_NM, SIZE_NM, VOLUME, Case, Made, in_order

ORDERS = [*map("".join, permutations("zyx")), "czyx", "tczyx", "xyzc", "zycx"]


def _made(folder: Path, order: str = "zyx", attributes: Any = None, array: Any = None, **how: Any) -> Made:
    expected = {name: how.pop(name) for name in ("size_nm", "offset_nm", "unsized") if name in how}
    stored = in_order(order) if array is None else array
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", data=stored, **how).attrs.update(attributes or {})
    return Made(str(folder / "a.h5"), **expected)


def _axistags(folder: Path, order: str) -> Made:
    """As vigra writes them; the sizes of ilastik stand in the order of the dataset's own axes."""
    tags = {
        "axes": [{"key": n, "typeFlags": 2 if n in "zyx" else 1, "resolution": 0, "description": ""} for n in order]
    }
    return _made(folder, order, {"axistags": json.dumps(tags)})


def _axis_order(folder: Path, order: str) -> Made:
    return _made(folder, order, {"axis_order": order})


def _labels(folder: Path, order: str) -> Made:
    made = _made(folder, order)
    with h5py.File(made.address, "a") as file:
        for axis, name in enumerate(order):
            file["raw"].dims[axis].label = name
    return made


def _scales(folder: Path, order: str) -> Made:
    """Dimension scales, as netCDF-4 and xarray have them."""
    made = _made(folder, order)
    with h5py.File(made.address, "a") as file:
        for axis, name in enumerate(order):
            file[name] = np.arange(file["raw"].shape[axis], dtype=np.float32)
            file[name].make_scale(name)
            file["raw"].dims[axis].attach_scale(file[name])
    return made


def _plugin(folder: Path, number: int) -> Made:
    import hdf5plugin  # noqa: F401 - registers the filters

    return _made(folder, chunks=(4, 8, 8), compression=number)


def _virtual(folder: Path, missing: bool) -> Made:
    made = _made(folder)
    source = h5py.VirtualSource(made.address, "raw", VOLUME.shape)
    layout = h5py.VirtualLayout(VOLUME.shape, "u1")
    layout[...] = source
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    if missing:
        Path(made.address).rename(folder / "elsewhere.h5")
    return Made(str(folder / "virtual.h5"))


def _linked(folder: Path, missing: bool) -> Made:
    made = _made(folder)
    with h5py.File(folder / "linked.h5", "w") as file:
        file["here"] = h5py.ExternalLink(made.address, "raw")
    if missing:
        Path(made.address).unlink()
    return Made(str(folder / "linked.h5") + ":here")


def _external(folder: Path, missing: bool) -> Made:
    """A dataset whose bytes lie in a raw file beside it."""
    raw = folder / "bytes.raw"
    raw.write_bytes(VOLUME.tobytes())
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", VOLUME.shape, "u1", external=[(str(raw), 0, VOLUME.nbytes)])
    if missing:
        raw.unlink()
    return Made(str(folder / "a.h5"))


def _torn(folder: Path) -> Made:
    made = _made(folder, chunks=(4, 8, 8))
    path = Path(made.address)
    path.write_bytes(path.read_bytes()[:-2000])
    return made


def _several(folder: Path, address: str) -> Made:
    with h5py.File(folder / "a.h5", "w") as file:
        file["volumes/raw"], file["volumes/labels"] = VOLUME, VOLUME[:2]
    return Made(f"{folder / 'a.h5'}{address}")


def cases() -> list[Case]:
    """All of them."""
    found = []
    for name, make in {
        "axistags": _axistags, "axis_order": _axis_order, "labels": _labels, "scales": _scales,
    }.items():  # fmt: skip
        found += [Case(f"HDF5 {name}", order, partial(make, order=order)) for order in ORDERS]
    nm = [s / 1e3 for s in SIZE_NM]
    sizes: dict[str, Any] = {
        "element_size_um": {"attributes": {"element_size_um": nm}, "size_nm": SIZE_NM},
        "resolution, offset": {
            "attributes": {"resolution": SIZE_NM, "offset": OFFSET_NM}, "size_nm": SIZE_NM, "offset_nm": OFFSET_NM,
        },
        "resolution with axis_order xyz": {
            "order": "xyz", "attributes": {"axis_order": "xyz", "resolution": SIZE_NM[::-1]}, "size_nm": SIZE_NM,
        },
        "none": {"unsized": True},
        "placeholder 1,1,1 um": {"attributes": {"element_size_um": [1.0, 1.0, 1.0]}, "unsized": True},
    }  # fmt: skip
    found += [Case("HDF5 size", name, partial(_made, **how)) for name, how in sizes.items()]
    for values in ([0.0, 8.0, 4.0], [-30.0, 8.0, 4.0], [float("nan"), 8.0, 4.0]):
        found.append(Case("HDF5 odd size", str(values), partial(_made, attributes={"resolution": values}), "refused"))
    filters: dict[str, Any] = {
        "gzip, shuffle": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf"},
        "scale-offset": {"scaleoffset": 0},
    }
    found += [Case("HDF5 filters", name, partial(_made, chunks=(4, 8, 8), **how)) for name, how in filters.items()]
    plugins = {"zstd": 32015, "blosc": 32001, "lz4": 32004, "bitshuffle": 32008, "bzip2": 307, "blosc2": 32026}
    found += [
        Case("HDF5 filters", name, partial(_plugin, number=number), "right or refused")
        for name, number in plugins.items()
    ]
    two = np.stack([VOLUME, VOLUME])
    for name, broken in {"virtual": _virtual, "external link": _linked, "external bytes": _external}.items():
        found += [
            Case("HDF5 of several files", f"{name}, whole", partial(broken, missing=False)),
            Case("HDF5 of several files", f"{name}, one is gone", partial(broken, missing=True), "refused"),
        ]
    return [
        *found,
        Case("HDF5 other", "two channels", partial(_made, array=two), "refused"),
        Case("HDF5 other", "complex", partial(_made, array=VOLUME.astype(np.complex64)), "refused"),
        Case("HDF5 other", "torn", _torn, "refused"),
        Case("HDF5 other", "several, none named", partial(_several, address=""), "refused"),
        Case("HDF5 other", "several, one named", partial(_several, address=":volumes/raw")),
        Case("HDF5 other", "several, another named", partial(_several, address=":volumes/none"), "refused"),
    ]
