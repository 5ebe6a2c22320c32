"""Is any file read wrongly? The matrix of kinds of input by outcome: right, refused in words, wrong, traceback.

Every variant is made small, opened, read whole and compared with what was put into it (voxels, voxel size, place)::

    python -m benchmarks.inputs            # the matrix, and every case that came out as it should not
    python -m benchmarks.inputs --all      # each case with what was said

Wrong and traceback must be 0: the exit code is 1 otherwise, or where a readable file is refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from benchmarks import report
from benchmarks.input_kinds import hdf5_files, other_files, precomputed_files, tiff_files, zarr_files
from benchmarks.input_kinds.case import Case, Outcome, Result, tried

ROOMS = (zarr_files, tiff_files, hdf5_files, precomputed_files, other_files)


def cases() -> list[Case]:
    """All variants of all kinds."""
    return [case for room in ROOMS for case in room.cases()]


def results(chosen: Sequence[Case], folder: Path) -> Iterator[Result]:
    """Try each in a folder of its own."""
    for number, case in enumerate(chosen):
        yield tried(case, folder / str(number))


def matrix(found: Sequence[Result]) -> list[report.Row]:
    """A row a kind: how many variants came out how, and how many as they should not."""
    rows: list[report.Row] = []
    for kind in dict.fromkeys(result.case.kind for result in found):
        of_kind = [result for result in found if result.case.kind == kind]
        counts = {name: sum(result.outcome == name for result in of_kind) for name in get_args(Outcome)}
        rows.append({"kind": kind, **counts, "not as wanted": sum(not result.is_wanted for result in of_kind)})
    return rows


def main() -> int:
    """Print the matrix; 1 where a case came out as it should not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--all", action="store_true", help="each case with what was said")
    parser.add_argument("--only", default="", help="kinds with this word in their name")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(results([case for case in cases() if given.only in case.kind], Path(folder)))
    print(report.table(matrix(found)))
    for result in found:
        if given.all or not result.is_wanted:
            case = result.case
            print(f"{case.kind}, {case.name}: {result.outcome}, wanted {case.wanted}: {result.said[:300]}")
    return int(not all(result.is_wanted for result in found))


if __name__ == "__main__":
    sys.exit(main())
