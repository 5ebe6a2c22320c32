"""Does a voxel cost the same, and a process hold no more memory, in a volume of 2048^3 as in one of 256^3?

One tile of 256^3 voxels, about a tenth of them seeds, mirrored at its faces again and again, so that no input is stored
and every volume has as many seeds a voxel; labelled, stitched, merged and relabelled to ids on disk in blocks of 128^3,
through the ledgers. Each size runs in a process of its own, all sizes in turn and that again, since what else a machine
does changes within minutes; of the largest, one repetition in all. Targets: medians of the seconds a voxel within 15 %
of each other, the same peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.label_peers import PLAIN
from benchmarks.label_run import PARTS, Measured, executor_of, label_blockwise, worker_peaks
from benchmarks.made_maps import Made, mirrored_maps
from pipeline.geometry import vec3
from pipeline.grid import BlockGrid

SIZES = (256, 512, 1024, 2048)
WITHIN = 0.15
ONCE = 2048  # this side in the first turn alone; in each turn half of it once, a quarter twice, an eighth four times


@dataclass(frozen=True, slots=True)
class Case:
    """One volume of ``size`` voxels a side: in ``workers`` processes, or 0 for two threads of this one."""

    size: int
    block: int
    tile: int
    workers: int
    repeats: int
    folder: str

    def run(self) -> dict[str, Any]:
        """Measure it here: the seconds of the parts of each repetition, and what else its row says."""
        folder = Path(self.folder)
        measured = Measured()
        with executor_of(self.workers) as executor:
            label_blockwise(folder / "run", self._made(2 * self.block), PLAIN, executor, Measured())  # imports
            made = self._made(self.size)
            for _ in range(self.repeats):
                label_blockwise(folder / "run", made, PLAIN, executor, measured)
            peaks = [report.peak_bytes(), *worker_peaks(executor)]
        return {
            "repetitions": measured.repetitions,
            "blocks": len(made.grid),
            "instances": measured.instances,
            "peak_mb": [round(peak / 1e6) for peak in peaks],
        }

    def run_apart(self) -> dict[str, Any]:
        """Measure it in a process of its own."""
        command = [sys.executable, "-m", "benchmarks.label_scaling", "--case", json.dumps(asdict(self))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return row

    def _made(self, size: int) -> Made:
        shape = vec3((size, size, size))
        maps = mirrored_maps(Path(self.folder) / "tile", shape, vec3((self.tile, self.tile, self.tile)))
        return Made(maps, BlockGrid(shape, (self.block, self.block, self.block)))


def main(
    sizes: Sequence[int] = SIZES,
    block: int = 128,
    tile: int = 256,
    workers: int = 0,
    repeats: int = 3,
    results: Path = report.RESULTS,
    run: Callable[[Case], dict[str, Any]] = Case.run_apart,
) -> list[dict[str, Any]]:
    """Measure all sizes in ``repeats`` turns, print the table, write the JSON."""
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            for size in sizes if turn == 0 else [size for size in sizes if size < ONCE]:
                case = Case(size, block, tile, workers, max(1, min(ONCE // (2 * size), 4)), folder)
                found[size].append(run(case))
    rows = [_row(size, answers) for size, answers in found.items()]
    cheapest = min(row["s_a_gvx"] for row in rows)
    rows = [{**row, "to_cheapest": round(row["s_a_gvx"] / cheapest, 3)} for row in rows]
    print(report.table(rows))
    print(f"target: to_cheapest at most {1 + WITHIN:g}; found {max(row['to_cheapest'] for row in rows):g}")
    report.write("label_scaling", rows, results)
    return rows


def _row(side: int, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """One size from the answers of its processes."""
    measured = Measured([each for answer in answers for each in answer["repetitions"]])
    measured.instances = answers[0]["instances"]
    return {
        "side": side,
        "blocks": answers[0]["blocks"],
        **measured.row(f"{side}^3", side**3),
        "s_a_gvx": round(measured.median(*PARTS) / side**3 * 1e9, 3),
        "peak_mb": [max(peaks) for peaks in zip(*(answer["peak_mb"] for answer in answers), strict=True)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: two threads of one process")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(Case(**json.loads(given.case)).run()))
    else:
        main(given.sizes, workers=given.workers, repeats=given.repeats)
