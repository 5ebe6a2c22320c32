"""MRC, NRRD, NIfTI and NumPy files."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.input_kinds.case import SIZE_NM, VOLUME, Case, Made


def _npy(folder: Path, array: Any, truth: Any = None) -> Made:
    np.save(folder / "a.npy", array)
    return Made(str(folder / "a.npy"), array if truth is None else truth)


def _mrc(folder: Path, array: Any, name: str = "a.mrc", sized: bool = True, **header: Any) -> Made:
    import mrcfile

    with mrcfile.new(folder / name, data=array) as file:
        if sized:
            file.voxel_size = tuple(10 * s for s in SIZE_NM[::-1])
        file.set_volume()
        for key, value in header.items():
            file.header[key] = value
    return Made(str(folder / name), array, SIZE_NM if sized else None, unsized=not sized)


def _mrc_turned(folder: Path, order: str) -> Made:
    """``order`` names the stored axes from the slowest to the fastest, as MAPS, MAPR, MAPC do."""
    import mrcfile

    stored = VOLUME.transpose(["zyx".index(name) for name in order])
    with mrcfile.new(folder / "a.mrc", data=np.ascontiguousarray(stored).astype(np.int16)) as file:
        file.set_volume()
        file.header.maps, file.header.mapr, file.header.mapc = ("xyz".index(name) + 1 for name in order)
    return Made(str(folder / "a.mrc"), VOLUME.astype(np.int16))


def _nrrd(folder: Path, name: str = "a.nrrd", header: Any = None, array: Any = None, **how: Any) -> Made:
    import nrrd

    stored = VOLUME if array is None else array
    z, y, x = SIZE_NM
    described = {
        "space dimension": 3, "space directions": np.diag([x, y, z]), "space units": ["nm", "nm", "nm"],
        "encoding": "raw", **(header or {}),
    }  # fmt: skip
    nrrd.write(str(folder / name), stored.T, described, index_order="F", **how)
    return Made(str(folder / name), stored, SIZE_NM if header is None else None)


def _nifti(folder: Path, name: str = "a.nii", array: Any = None, slope: float | None = None) -> Made:
    import nibabel

    stored = VOLUME if array is None else array
    z, y, x = SIZE_NM
    image = nibabel.Nifti1Image(stored.T, np.diag([x / 1e3, y / 1e3, z / 1e3, 1]))
    image.header.set_xyzt_units("micron")
    truth = stored
    if slope is not None:
        image.header.set_slope_inter(slope, 1.0)
        nibabel.save(image, folder / name)
        truth = np.asarray(nibabel.load(folder / name).dataobj).T
        return Made(str(folder / name), truth)
    nibabel.save(image, folder / name)
    return Made(str(folder / name), truth, SIZE_NM)


def cases() -> list[Case]:
    """All of them; any of these formats may be refused, but not read otherwise."""
    two = np.stack([VOLUME, VOLUME])
    made: list[tuple[str, str, Any]] = [
        ("npy", "C order", partial(_npy, array=VOLUME)),
        ("npy", "Fortran order", partial(_npy, array=np.asfortranarray(VOLUME))),
        ("npy", "big endian", partial(_npy, array=VOLUME.astype(">u2"))),
        ("npy", "a leading axis of 1", partial(_npy, array=VOLUME[None], truth=VOLUME)),
        ("MRC", "uint16", partial(_mrc, array=VOLUME.astype(np.uint16))),
        ("MRC", "int16", partial(_mrc, array=VOLUME.astype(np.int16) - 100)),
        ("MRC", "int8", partial(_mrc, array=(VOLUME // 2).astype(np.int8))),
        ("MRC", "float32", partial(_mrc, array=VOLUME.astype(np.float32))),
        ("MRC", ".rec", partial(_mrc, array=VOLUME.astype(np.int16), name="a.rec")),
        ("MRC", "no cell", partial(_mrc, array=VOLUME.astype(np.int16), sized=False)),
        *(("MRC axes", "".join(p), partial(_mrc_turned, order="".join(p))) for p in permutations("zyx")),
        ("NRRD", "raw", _nrrd),
        ("NRRD", "gzip", partial(_nrrd, header={"encoding": "gzip"})),
        ("NRRD", "detached", partial(_nrrd, name="a.nhdr")),
        ("NRRD", "big endian", partial(_nrrd, array=VOLUME.astype(">u2"), header={"endian": "big"})),
        ("NIfTI", "nii", _nifti),
        ("NIfTI", "nii.gz", partial(_nifti, name="a.nii.gz")),
        ("NIfTI", "int16", partial(_nifti, array=VOLUME.astype(np.int16) - 100)),
        ("NIfTI", "scaled", partial(_nifti, array=VOLUME.astype(np.int16), slope=2.0)),
    ]
    refused = [
        ("npy", "two channels", partial(_npy, array=two)),
        ("npy", "objects", partial(_npy, array=np.array([None, "a"], object))),
    ]
    return [
        *(Case(kind, name, make) for kind, name, make in made),
        *(Case(kind, name, make, "refused") for kind, name, make in refused),
    ]
