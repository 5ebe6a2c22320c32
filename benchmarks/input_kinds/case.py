"""A variant of a kind of input, what must come out of it, and what did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import TeramitoError
from pipeline.store.volume import open_volume

Outcome = Literal["right", "refused", "wrong", "traceback"]
Wanted = Literal["right", "refused", "right or refused"]

SIZE_NM, OFFSET_NM = (30.0, 8.0, 4.0), (60.0, -16.0, 12.0)
# Three different sides, no multiple of a chunk; no value twice in a line, so that no shift or flip looks alike.
VOLUME = np.random.default_rng(0).integers(1, 255, (9, 22, 31)).astype(np.uint8)


@dataclass(frozen=True)
class Made:
    """An input on disk: ``address`` as a user gives it, and what is in it, z y x.

    ``size_nm`` and ``offset_nm`` are compared where they are not None; ``noted`` is a word that a note must have.
    """

    address: str
    voxels: Any = None
    size_nm: tuple[float, float, float] | None = None
    offset_nm: tuple[float, float, float] | None = None
    unsized: bool = False
    noted: str = ""


@dataclass(frozen=True)
class Case:
    """A variant: ``make`` writes it into an empty folder."""

    kind: str
    name: str
    make: Callable[[Path], Made]
    wanted: Wanted = "right"


@dataclass(frozen=True)
class Result:
    """What became of a case; ``said`` is the refusal, the difference or the error."""

    case: Case
    outcome: Outcome
    said: str

    @property
    def is_wanted(self) -> bool:
        """Whether it is one of the outcomes that are right for the case."""
        return self.outcome in self.case.wanted.split(" or ")


def tried(case: Case, folder: Path) -> Result:
    """Make the input, open and read it whole through ``open_volume``, and compare."""
    folder.mkdir(parents=True)
    try:
        difference = _difference(case.make(folder))
    except TeramitoError as refusal:
        return Result(case, "refused", str(refusal))
    except Exception as error:  # noqa: BLE001 - whatever comes out is the finding
        return Result(case, "traceback", f"{type(error).__name__}: {error}")
    return Result(case, "wrong" if difference else "right", difference)


def _difference(made: Made) -> str:
    volume = open_volume(made.address)
    truth = VOLUME if made.voxels is None else made.voxels
    if volume.shape != truth.shape:
        return f"shape {volume.shape} for {truth.shape}"
    if not np.array_equal(volume.read(volume.box), truth):
        return "other voxels"
    if made.unsized and volume.voxel_size_nm is not None:
        return f"voxel size {volume.voxel_size_nm} of a file that states none"
    if made.size_nm is not None and not _close(volume.voxel_size_nm, made.size_nm):
        return f"voxel size {volume.voxel_size_nm} for {made.size_nm}"
    if made.offset_nm is not None and not _close(volume.offset_nm, made.offset_nm):
        return f"offset {volume.offset_nm} for {made.offset_nm}"
    if made.noted and not any(made.noted in note for note in volume.notes):
        return f"nothing is said of {made.noted!r}: {volume.notes}"
    return ""


def _close(found: Any, wanted: tuple[float, float, float]) -> bool:
    return found is not None and bool(np.allclose(found, wanted, rtol=1e-3, atol=1e-6))


def in_order(order: str, array: Any = None) -> Any:
    """The volume with its axes in this order; every letter but z, y, x becomes an axis of length 1."""
    zyx = VOLUME if array is None else array
    turned = zyx.transpose(["zyx".index(name) for name in order if name in "zyx"])
    return np.ascontiguousarray(
        turned.reshape([zyx.shape["zyx".index(name)] if name in "zyx" else 1 for name in order])
    )


def by_order(order: str, values: Any = SIZE_NM, other: Any = 1.0) -> list[Any]:
    """One value for each axis of the order, from those of z, y, x."""
    return [values["zyx".index(name)] if name in "zyx" else other for name in order]


def named(kind: str, cases: list[Case]) -> list[Case]:
    """The cases as cases of one kind."""
    return [replace(case, kind=kind) for case in cases]
