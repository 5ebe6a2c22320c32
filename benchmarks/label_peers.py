"""Labelling a volume on disk: how many times the voxels/s of igneous and dask-image, how many times cc3d's time?

The same seeds for all, about a tenth of the voxels, 6-connected, storage to storage, uint64 ids: teramito from two
probability maps (zarr) in blocks of 128^3 and through its ledgers, the others from the binary volume. igneous from and
to precomputed volumes, stored by its default encoding (compresso), in tasks as large as those blocks, and of 256^3 with
eight times the memory, which suits it better; dask-image zarr to zarr. cc3d labels the array in memory, in one thread.
Worker processes are started before the clock. All must count the same components, and teramito's ids must be cc3d's
voxel for voxel.

The peers stand in an environment of their own, which ``make peers`` sets up; without it they are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import report
from benchmarks.label_run import Measured, executor_of, label_blockwise, label_in_memory
from benchmarks.labels import require_equal
from benchmarks.made_maps import VOXEL_SIZE_NM, Made, all_seeds, made_maps
from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.geometry import Vec3, vec3
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.store.formats.precomputed import create_precomputed
from pipeline.store.volume import Volume, open_volume

SHAPE, BLOCK = vec3((512, 512, 512)), vec3((128, 128, 128))
PEERS_PYTHON = Path(".venv-peers/bin/python")
SCRIPTS = Path(__file__).parent / "peers"
PLAIN = instance_plan(InstanceSettings(grow="none", minimum_voxels=0), VOXEL_SIZE_NM, None)
# igneous' passes beside our steps: it labels in each of its three passes over the volume.
PASSES = {"faces": "label", "links": "stitch", "merge": "merge", "relabel": "relabel", "label": "label"}
TARGETS = {"igneous, 1": 3.0, "igneous, 2": 5.0, "dask-image": 50.0}


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of running one peer: the name of its row, its script with arguments, its workers."""

    name: str
    command: tuple[str, ...]
    workers: int


def peers(tasks: Sequence[int], dask_image: bool) -> list[Peer]:
    """All that are compared; igneous in tasks of each of these numbers of voxels a side."""
    found = [
        Peer(
            f"igneous, {workers} worker{'s' * (workers > 1)}, tasks of {task}^3",
            ("igneous_ccl.py", "--task", str(task), "--workers", str(workers)),
            workers,
        )
        for task in tasks
        for workers in (1, 2)
    ]
    return [*found, Peer("dask-image, 2 threads", ("dask_image_label.py", "--workers", "2"), 2)][
        : len(found) + dask_image
    ]


def stored_seeds(folder: Path, made: Made, found: npt.NDArray[np.bool_]) -> dict[str, Path]:
    """The binary volume as each script reads it, by the script's name; kept where it is there already."""
    zarr = stored_volume(str(folder / "zarr"), made.grid, "uint8", made.maps.semantic, made.maps.semantic.chunks)
    if not (folder / "made").exists():
        create_if_missing(zarr, made.grid)
        url = str(folder / "precomputed")
        create_precomputed(url, zarr.shape, "uint8", VOXEL_SIZE_NM, (0.0, 0.0, 0.0), zarr.chunks, "image")
        precomputed = open_volume(url)
        for block in made.grid:
            for volume in (zarr, precomputed):
                volume.write(block.core, found[block.core.slices()].astype(np.uint8))
        (folder / "made").touch()
    return {"igneous_ccl.py": folder / "precomputed", "dask_image_label.py": folder / "zarr" / "0"}


def run_peer(python: Path, peer: Peer, seeds: dict[str, Path], target: Path, measured: Measured) -> None:
    """One repetition in a process of its own.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    shutil.rmtree(target, ignore_errors=True)
    source = seeds[peer.command[0]]
    shutil.rmtree(source / "10_10_10" / "ccl", ignore_errors=True)  # igneous' intermediate files
    script, *options = peer.command
    command = [str(python), str(SCRIPTS / script), str(source), str(target), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{peer.name}: {ended.stderr[-2000:]}")
    answer = json.loads(ended.stdout.splitlines()[-1])
    measured.repetitions.append({PASSES[name]: seconds for name, seconds in answer["seconds"].items()})
    measured.instances = answer["components"]


def require_same_count(rows: list[dict[str, Any]]) -> None:
    """Stop where not all found the same number of components."""
    if len({row["instances"] for row in rows}) > 1:
        raise AssertionError(", ".join(f"{row['what']}: {row['instances']}" for row in rows))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One volume, stored in ``folder`` for everyone."""

    folder: Path
    made: Made
    seeds: npt.NDArray[np.bool_]

    def ours(self, workers: int, repeats: int) -> tuple[Measured, Volume]:
        """teramito with some worker processes, or two threads (0); the last segmentation."""
        measured = Measured()
        with executor_of(workers) as executor:
            label_blockwise(self.folder / "run", self._tiny(), PLAIN, executor, Measured())  # imports on the workers
            for _ in range(repeats):
                stored = label_blockwise(self.folder / "run", self.made, PLAIN, executor, measured)
        return measured, stored

    def _tiny(self) -> Made:
        return made_maps(self.folder / "tiny", vec3((32, 32, 32)), vec3((16, 16, 16)))

    def cc3d(self, repeats: int) -> tuple[Measured, npt.NDArray[Any]]:
        """cc3d in memory; its labels."""
        measured = Measured()
        labels = label_in_memory(self.seeds, measured)
        for _ in range(repeats - 1):
            del labels  # 4 bytes a voxel
            labels = label_in_memory(self.seeds, measured)
        return measured, labels

    def of_peers(self, python: Path, chosen: list[Peer], repeats: int) -> Iterator[tuple[Peer, Measured]]:
        """Every peer; dask-image once, as it takes minutes."""
        stored = stored_seeds(self.folder / "seeds", self.made, self.seeds)
        for peer in chosen:
            measured = Measured()
            for _ in range(repeats if peer.command[0] == "igneous_ccl.py" else 1):
                run_peer(python, peer, stored, self.folder / "target", measured)
            yield peer, measured


def measure(
    folder: Path, shape: Vec3, block: Vec3, repeats: int, python: Path, chosen: list[Peer], workers: Sequence[int]
) -> list[dict[str, Any]]:
    """All rows; ``speedup`` is teramito's voxels/s, with as many workers, over those of the row."""
    made = made_maps(folder / "maps", shape, block)
    comparison = Comparison(folder, made, all_seeds(made.maps, PLAIN, made.grid))
    whole, expected = comparison.cc3d(repeats)
    rows, seconds = [{"workers": 1, **whole.row("cc3d in memory", expected.size)}], {}
    for number in workers:
        measured, segmentation = comparison.ours(number, repeats)
        require_equal(segmentation, expected, made.grid)
        rows.append({"workers": number, **measured.row(_our_name(number), expected.size)})
        seconds[number] = rows[-1]["total_s"]  # as printed: our own rows give exactly 1
    del expected
    if python.exists():
        for peer, found in comparison.of_peers(python, chosen, repeats):
            rows.append({"workers": peer.workers, **found.row(peer.name, comparison.seeds.size)})
    require_same_count(rows)
    share, fastest = round(float(comparison.seeds.mean()), 3), min(seconds.values())
    ours = [seconds.get(row["workers"], fastest) for row in rows]
    return [
        {**row, "speedup": round(row["total_s"] / mine, 4), "seeds": share}
        for row, mine in zip(rows, ours, strict=True)
    ]


def _our_name(workers: int) -> str:
    return f"teramito, {workers} worker{'s' * (workers > 1)}" if workers else "teramito, 2 threads"


def verdicts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each target with what was found."""
    cc3d_s, ours = rows[0]["total_s"], [row for row in rows if row["what"].startswith("teramito")]
    for row in ours:
        yield f"{row['what']}: {row['total_s'] / cc3d_s:.2f} times cc3d's time in one thread (target: at most 4)"
    for row in rows:
        for name, target in TARGETS.items():
            if row["what"].startswith(name):
                yield f"{row['speedup']:.1f} times the voxels/s of {row['what']} (target: {target:g})"


def main(
    shape: Vec3 = SHAPE,
    block: Vec3 = BLOCK,
    repeats: int = 3,
    folder: Path | None = None,
    python: Path = PEERS_PYTHON,
    tasks: Sequence[int] = (128, 256),
    dask_image: bool = False,
    workers: Sequence[int] = (0, 1, 2),
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON; ``folder`` keeps the volume for the next time."""
    if not python.exists():
        print(f"{python} is not there, no peers are run: make peers")
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(folder or Path(temporary), shape, block, repeats, python, peers(tasks, dask_image), workers)
    print(report.table(rows))
    print("\n".join(verdicts(rows)))
    if not dask_image:
        print("dask-image was left out: --dask-image")
    report.write(f"label_peers_{shape[0]}", rows, results)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--block", type=int, nargs=3, default=BLOCK)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept afterwards, with the volume")
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="of the peers' environment")
    parser.add_argument("--tasks", type=int, nargs="+", default=(128, 256), help="voxels a side of igneous' tasks")
    parser.add_argument("--dask-image", action="store_true", help="also dask-image, once: 5 minutes for 512^3")
    given = parser.parse_args()
    main(vec3(given.shape), vec3(given.block), given.repeats, given.folder, given.python, given.tasks, given.dask_image)
