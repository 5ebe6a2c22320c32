"""What a restoration did, in numbers: sums over the tables of its blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.denoise.ops.damage import BITS
from pipeline.denoise.stages.damage import DamageStage
from pipeline.engine.directory import RunDirectory

if TYPE_CHECKING:
    from pipeline.denoise.stages.restore import RestoreStage

NAMED = 50  # slices at most; where there are more, their count says so
_WHOLE_PERCENT = 90  # of a slice's area: replaced in more, it counts as a whole one


@dataclass(frozen=True)
class Totals:
    """Sums over all blocks, slice by slice, int64 (slices,).

    Attributes:
        replaced, left: voxels replaced, and damaged ones left as they were.
        largest: most voxels replaced in one block of the slice.
        block: the number of that block, any where nothing is replaced.
    """

    replaced: NDArray[np.int64]
    left: NDArray[np.int64]
    largest: NDArray[np.int64]
    block: NDArray[np.int64]


def restored_totals(stage: RestoreStage) -> Totals:
    """Add up a finished restoration; one block's table is in memory at a time.

    Raises:
        BadInput: the table of a block is torn or gone.
    """
    replaced, left, block = (np.zeros(stage.grid.extent[0], np.int64) for _ in range(3))
    largest = np.zeros(len(replaced))
    for number in range(len(stage.grid)):
        table = stage.tables.read(number)
        z, count = table["z"], table["replaced"]
        replaced[z] += count
        left[z] += table["left"]
        # Of slices replaced as a whole all blocks are equal: which one is taken is drawn, or it were always the corner.
        drawn = np.where(count > 0, count + np.random.default_rng(number).random(len(z)), 0.0)
        more = drawn > largest[z]
        largest[z[more]], block[z[more]] = drawn[more], number
    return Totals(replaced, left, largest.astype(np.int64), block)


def restoration_summary(stage: RestoreStage, sums: Totals, cells: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The facts of a finished restoration, ready for JSON.

    Args:
        stage: every block of it done.
        sums: its ``restored_totals``.
        cells: where damage was looked for, cells of the damage map for each kind that was found.

    Returns:
        ``restorer``; ``replaced_voxels``, their ``share`` of the volume, ``left_voxels`` (damaged, left as they were);
        ``slices`` with a replaced voxel; ``whole_slices`` replaced in more than 90 % of their area and
        ``slices_left`` with voxels left: each a count, and up to 50 of the slices by number (``..._z``);
        ``damage_cells``.
    """
    _, height, width = stage.grid.extent
    whole = np.flatnonzero(100 * sums.replaced > _WHOLE_PERCENT * height * width)
    slices_left = np.flatnonzero(sums.left)
    replaced = int(sums.replaced.sum())
    return {
        "restorer": stage.spec.name,
        "replaced_voxels": replaced,
        "left_voxels": int(sums.left.sum()),
        "share": replaced / prod(stage.grid.extent),
        "slices": int(np.count_nonzero(sums.replaced)),
        "whole_slices": len(whole),
        "whole_slices_z": whole[:NAMED].tolist(),
        "slices_left": len(slices_left),
        "slices_left_z": slices_left[:NAMED].tolist(),
        "damage_cells": {kind: int(count) for kind, count in (cells or {}).items()},
    }


def headline(summary: Mapping[str, Any]) -> str:
    """A summary in one line."""
    if summary["share"] == 1.0:
        return f"All {in_words(summary['replaced_voxels'], 'voxel')} replaced"
    if not summary["replaced_voxels"]:
        return f"Nothing replaced; {in_words(summary['left_voxels'], 'damaged voxel')} left as imaged"
    return (
        f"{in_words(summary['replaced_voxels'], 'voxel')} replaced in {in_words(summary['slices'], 'slice')}, "
        f"{percent(summary['share'])} of the volume; {in_words(summary['left_voxels'], 'damaged voxel')} left as imaged"
    )


def in_words(number: int, what: str) -> str:
    """``1 slice``, ``1,234 slices``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def percent(share: float) -> str:
    """A share in per cent, to two digits where it is small."""
    return f"{100 * share:.3g} %" if share >= 0.1 else f"{100 * share:.2g} %" if share >= 1e-5 else "less than 0.001 %"


def cells_of(stage: DamageStage) -> dict[str, int]:
    """Damaged cells of each kind that a finished detection found, by name; a cell may have several."""
    total = sum(stage.kinds.read(number)["kinds"] for number in range(len(stage.grid)))
    return {name: int(count) for name, count in zip(BITS, np.asarray(total), strict=True)}


def restoration_of(directory: RunDirectory) -> dict[str, Any]:
    """What a run's restoration replaced; empty where it has none or has not finished it."""
    try:
        found = json.loads(directory.restoration.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
