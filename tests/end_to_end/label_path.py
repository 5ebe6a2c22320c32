"""Instances from stored maps through the real stages, in ways that a run can go wrong, and what they must come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.engine.blocks import chunk_shape
from pipeline.engine.directory import RunDirectory
from pipeline.engine.executor import Executor, SerialExecutor
from pipeline.engine.ledger import parse_line
from pipeline.engine.stage import BlockResult, Stage, run_block
from pipeline.engine.step import Step, run_step
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.maps import Maps
from pipeline.image.mask import CoarseMask
from pipeline.instances.labelling import MERGE_AT_ONCE, Labelling
from pipeline.instances.plan import InstancePlan
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.instances.steps import instance_steps
from pipeline.instances.table import part_files
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint64]
CONNECTIVITIES = (6, 18, 26)
ISOTROPIC = (10.0, 10.0, 10.0)
AS_THEY_ARE = {"seed_above": 0.5, "boundary_below": 1.0, "grow": "none", "minimum_voxels": 1}


# What it must come to


def in_core(mask: Mask, connectivity: int, minimum: int = 0) -> Labels:
    """Components of the whole volume, 1..N by first voxel; cc3d and scipy must agree on them."""
    z, y, x = mask.shape
    padded = np.pad(mask, [(0, length % 2) for length in mask.shape])  # cc3d 4.1.1 refuses some odd lengths under 26
    by_cc3d = cc3d.connected_components(padded, connectivity=connectivity, binary_image=True)[:z, :y, :x]
    order = {6: 1, 18: 2, 26: 3}[connectivity]
    by_scipy, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, order))
    found = canonical(by_cc3d, minimum)
    assert np.array_equal(found, canonical(by_scipy, minimum))
    return found


def canonical(labels: NDArray[Any], minimum: int = 0) -> Labels:
    """Labels numbered 1..N by their first voxel, those of fewer than ``minimum`` voxels left out."""
    values, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero((values != 0) & (counts >= minimum))
    numbers = np.zeros(len(values), np.uint64)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1, dtype=np.uint64)
    return numbers[inverse].reshape(labels.shape)


# Runs


@dataclass(frozen=True)
class LabelRun:
    """Instances from two stored maps in a directory of its own."""

    root: Path
    maps: Maps
    grid: BlockGrid
    settings: Mapping[str, Any]
    merge_at_once: int = MERGE_AT_ONCE
    tissue: CoarseMask | None = None

    @property
    def plan(self) -> InstancePlan:
        """The settings resolved."""
        return instance_plan(InstanceSettings.model_validate(self.settings), self.maps.semantic.voxel_size_nm, None)

    @property
    def directory(self) -> RunDirectory:
        """Where everything is stored."""
        return RunDirectory(self.root)

    @property
    def steps(self) -> list[Step]:
        """The steps of ``pipeline.instances.steps``, made anew."""
        return instances_of(self)[0]

    def go_on(self, executor: Executor | None = None) -> None:
        """Run what is missing."""
        for step in self.steps:
            run_step(self.directory, step, executor or SerialExecutor())

    @property
    def segmentation(self) -> Labels:
        """The final ids."""
        volume: Volume = instances_of(self)[1]
        return volume.read(volume.box)

    @property
    def table(self) -> pa.Table:
        """The instance table."""
        return pa.concat_tables(map(parquet.read_table, part_files(self.directory.instances)))

    @property
    def merged(self) -> Labels:
        """The id of every fragment after the merge."""
        (path,) = (self.root / "tables").glob("merge-*.npy")
        return np.load(path)

    def finished(self) -> dict[str, list[int]]:
        """The numbers of the blocks in each ledger, in the order in which they were finished."""
        ledgers = sorted((self.root / "ledgers").glob("*.ledger"))
        return {path.stem: [result.number for result in results_of(path) if result.error is None] for path in ledgers}


def results_of(ledger: Path) -> list[BlockResult]:
    """What the whole lines of a ledger say."""
    return [parse_line(line) for line in ledger.read_text().split("\n")[1:-1]]


def blocks_of(ledger: Path) -> int:
    """How many blocks it is for."""
    return int(json.loads(ledger.read_text().split("\n")[0])["blocks"])


def instances_of(run: LabelRun) -> tuple[list[Step], Volume]:
    """Steps and segmentation of a run."""
    labelling = Labelling(
        run.directory, run.grid, chunk_shape(run.grid.block), run.plan, run.tissue, merge_at_once=run.merge_at_once
    )
    steps, segmentation, _ = instance_steps(labelling, run.maps)
    return steps, segmentation


def stored_maps(
    folder: Path, semantic: NDArray[np.uint8], boundary: NDArray[np.uint8], size: FloatVec3 = ISOTROPIC
) -> Maps:
    """Two maps on disk."""
    return Maps(store(folder / "semantic", semantic, size), store(folder / "boundary", boundary, size), "maps")


def store(path: Path, values: NDArray[Any], size: FloatVec3 = ISOTROPIC) -> Volume:
    """An OME-Zarr of one chunk."""
    ome_zarr.create(str(path), values.shape, values.shape, values.shape, str(values.dtype), size)
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return volume


def label_run(
    folder: Path, mask: Mask, block: Vec3, connectivity: int, at_once: int = MERGE_AT_ONCE, **settings: Any
) -> LabelRun:
    """A run that has not begun, whose seeds are ``mask``; with more than ``at_once`` fragments by super-blocks."""
    noise = np.random.default_rng(17).integers(1, 120, mask.shape, dtype=np.uint8)
    maps = stored_maps(folder / "maps", mask * np.uint8(130) + noise, np.zeros(mask.shape, np.uint8))
    chosen = {**AS_THEY_ARE, "connectivity": connectivity, **settings}
    return LabelRun(folder / "run", maps, BlockGrid(mask.shape, block), chosen, at_once)


def require_exact(run: LabelRun, expected: Labels) -> None:
    """Assert that a finished run is the whole volume's result, and that its table speaks of that."""
    np.testing.assert_array_equal(run.segmentation, expected)
    voxels = np.bincount(expected.reshape(-1))[1:]
    table = run.table
    assert table["id"].to_pylist() == list(range(1, len(voxels) + 1))
    assert table["voxels"].to_pylist() == voxels.tolist()
    for ledger in (run.root / "ledgers").iterdir():
        numbers = run.finished()[ledger.stem]
        assert sorted(numbers) == list(range(blocks_of(ledger))), f"{ledger}: a block is missing or was computed again"


# Executors that are less well behaved than ours


@dataclass
class Shuffled:
    """Blocks in any order."""

    seed: int

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        order = np.random.default_rng(self.seed).permutation(np.fromiter(numbers, int))
        return (run_block(stage, int(number)) for number in order)

    def close(self) -> None:
        pass


@dataclass
class Twice:
    """Every block is computed by two threads at once, as after a lost connection to a worker that lives on."""

    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        for number in numbers:
            first, second = (self.pool.submit(run_block, stage, number) for _ in range(2))
            assert first.result().count == second.result().count
            yield second.result()

    def close(self) -> None:
        self.pool.shutdown()


@dataclass
class Haunted:
    """Before each block, one that was done long ago is computed again: a worker taken for dead comes to its end."""

    seed: int
    done: list[tuple[Stage, int]] = field(default_factory=list)

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        random = np.random.default_rng(self.seed)
        for number in numbers:
            if self.done:
                run_block(*self.done[random.integers(len(self.done))])
            result = run_block(stage, number)
            self.done.append((stage, number))
            yield result

    def close(self) -> None:
        pass


@dataclass
class Dropping:
    """The connection breaks after some blocks, whose results were computed but may not have arrived."""

    seed: int

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        random = np.random.default_rng(self.seed)
        self.seed += 1
        left = int(random.integers(1, 6))
        for number in random.permutation(np.fromiter(numbers, int)):
            result = run_block(stage, int(number))
            if not left:
                raise ConnectionResetError("the scheduler is gone")
            left -= 1
            yield result

    def close(self) -> None:
        pass


def finish(run: LabelRun, executor: Executor, tries: int = 200) -> int:
    """Run again and again while the connection breaks; how often it took."""
    for attempt in range(1, tries + 1):
        try:
            run.go_on(executor)
        except ConnectionResetError:
            continue
        return attempt
    raise AssertionError(f"no end after {tries} tries")


# Volumes that are hard to join


def spiral_path(side: int) -> list[tuple[int, int]]:
    """From a corner of a plane to its centre, with a gap of one voxel between the turns."""
    path = [(0, 0)]
    lengths = [side - 1, *(n for m in range(side - 1, 0, -2) for n in (m, m))]
    for length, (dy, dx) in zip(lengths, cycle(((0, 1), (1, 0), (0, -1), (-1, 0))), strict=False):
        for _ in range(length):
            path.append((path[-1][0] + dy, path[-1][1] + dx))
    return path


def spiral(side: int) -> Mask:
    """The path as a plane."""
    plane = np.zeros((side, side), np.bool_)
    plane[tuple(np.transpose(spiral_path(side)))] = True
    return plane


def coil(side: int) -> Mask:
    """Spirals above one another, joined by turns at the centre and at the corner: one path through a cube."""
    volume = np.zeros((side, side, side), np.bool_)
    volume[::2] = spiral(side)
    for gap in range(1, side - 1, 2):
        volume[gap][spiral_path(side)[-1 if gap % 4 == 1 else 0]] = True
    return volume


def comb(shape: Vec3) -> Mask:
    """Teeth along y that meet only in the last row; where they meet changes from section to section."""
    volume = np.zeros(shape, np.bool_)
    volume[:, :, ::2] = True
    volume[::2, -1] = volume[1::2, 0] = True
    return volume


def diagonals(shape: Vec3) -> Mask:
    """Thin diagonals that touch over edges and corners alone."""
    z, y, x = np.indices(shape)
    return ((x + y + z) % 7 == 0) & ((x - y) % 3 == 0) | ((x == y) & (y == z)) | ((x + y == shape[2] - 1) & (z == y))


def lattice(shape: Vec3, kind: str) -> Mask:
    """The most components that there can be: for 6, 18 and 26, and a few more."""
    z, y, x = np.indices(shape) % 2
    even, odd = (z + y + x) == 0, (z + y + x) == 3
    return {"checkerboard": (z + y + x) % 2 == 0, "body-centred": even | odd, "corners": even, "rods": (y + x) == 0}[
        kind
    ]


def hard_volume(kind: str, shape: Vec3, seed: int) -> Mask:
    """A volume of that shape."""
    random = np.random.default_rng(seed)
    if kind.startswith("random"):
        return random.random(shape) < float(kind.split()[1])
    if kind in ("checkerboard", "body-centred", "corners", "rods"):
        return lattice(shape, kind)
    if kind in ("coil", "spiral"):
        side = max(shape)
        wound = coil(side) if kind == "coil" else np.broadcast_to(spiral(side), (side, side, side))
        return np.ascontiguousarray(turned(wound, seed)[tuple(map(slice, shape))])
    if kind in ("full", "empty"):
        return np.full(shape, kind == "full")
    return comb(shape) if kind == "comb" else diagonals(shape)


KINDS = (
    *(f"random {density}" for density in (0.03, 0.15, 0.31, 0.5, 0.8)),
    *("checkerboard", "body-centred", "corners", "rods", "coil", "spiral", "comb", "diagonals", "full", "empty"),
)


def turned(volume: Mask, seed: int) -> Mask:
    """One of the 48 ways to turn and mirror a volume."""
    ways = list(product(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)), range(8)))
    axes, mirrored = ways[seed % 48]
    return np.flip(volume.transpose(axes), [axis for axis in range(3) if mirrored >> axis & 1])
