"""inspect, compare and damage over stored volumes: the same bytes for every grid, dtype and executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.denoise.cell_arrays import cell_grid, cell_volume, write_slice_table
from pipeline.denoise.ops.damage import BITS, MISSING
from pipeline.denoise.ops.slices import TILE
from pipeline.denoise.stages import inspect
from pipeline.denoise.stages.compare import CompareStage, StoredCells, write_limits
from pipeline.denoise.stages.damage import DamageStage
from pipeline.denoise.stages.inspect import InspectStage
from pipeline.engine.arrays import create_if_missing
from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage
from pipeline.errors import BadInput
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale, sample_grey
from pipeline.phantom import Phantom
from pipeline.phantom.damage import plant
from pipeline.store.formats import ome_zarr
from pipeline.store.tables import BlockTables, open_table
from pipeline.store.volume import Volume, open_volume

CELL = (1, 4, 4)
SHAPE = (13, 150, 170)
GAP = 3
SIZE_NM = (10.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def damaged() -> NDArray[np.uint8]:
    made = Phantom(SHAPE, 3)
    grey, _ = plant(made.raw(made.box), SIZE_NM, seed=2, spacing=4)
    grey[0, :60] = 0  # of a damaged first slice
    grey[4:6, 40:, 60:] = 0  # over faces, edges and corners of blocks
    return grey


def _stored(path: Path, values: NDArray[np.generic]) -> Volume:
    shape: Vec3 = values.shape  # type: ignore[assignment]
    ome_zarr.create(str(path), shape, shape, shape, str(values.dtype), SIZE_NM)
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return volume


class Chain:
    """The three stages over one volume in one folder, and what they stored."""

    def __init__(self, source: Volume, folder: Path, grid: BlockGrid, executor: Executor | None = None) -> None:
        self.folder, self.grid, self.executor = folder, grid, executor or SerialExecutor()
        arrays = {
            name: replace(cell_volume(str(folder / name), source, CELL), chunks=grid.block)
            for name in ("mean", "texture", "damage")
        }
        for volume in arrays.values():
            create_if_missing(volume, grid)
        levels, histograms, kinds = (BlockTables(folder / name) for name in ("levels", "histograms", "kinds"))
        grey = sample_grey(source)[0]
        slices, limits = folder / "slices.npy", folder / "limits.npy"
        mean, texture = arrays["mean"], arrays["texture"]
        self.inspected = InspectStage(source, grey, CELL, mean, texture, levels, upstream="raw", grid=grid)
        self._run(self.inspected)
        write_slice_table(levels, grid, slices)
        cells = StoredCells(mean, texture, slices)
        self.compared = CompareStage(cells, histograms, GAP, upstream=self.inspected.fingerprint, grid=grid)
        self._run(self.compared)
        write_limits(histograms, grid, 1.0, limits)
        upstream = self.compared.fingerprint
        self.found = DamageStage(cells, limits, arrays["damage"], kinds, GAP, 1.0, upstream=upstream, grid=grid)
        self.counts = self._run(self.found)
        self.arrays = {name: volume.read(volume.box) for name, volume in arrays.items()}
        self.tables = [np.asarray(open_table(path)) for path in (slices, limits)]
        self.kinds = sum(kinds.read(number)["kinds"] for number in range(len(grid)))

    def _run(self, stage: Stage) -> NDArray[np.int64]:
        path = self.folder / f"{stage.name}.ledger"
        with Ledger(path, stage.name, stage.fingerprint, len(stage.grid)) as ledger:
            run_stage(stage, ledger, self.executor)
            return ledger.counts

    def require_same(self, other: Chain) -> None:
        for name, array in self.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
        for a, b in zip(self.tables, other.tables, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(damaged: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("whole")
    source = _stored(folder / "raw", damaged)
    return Chain(source, folder, cell_grid(SHAPE, CELL))


def test_damage_is_found_and_counted(whole: Chain) -> None:
    found = whole.arrays["damage"]
    assert (found[0, :14] & MISSING).all()
    assert (found[4:6, 10:, 16:] & MISSING).all()
    assert whole.counts.sum() == np.count_nonzero(found)
    assert list(whole.kinds) == [np.count_nonzero(found & bit) for bit in BITS.values()]


@pytest.mark.parametrize("block", [(4, 32, 32), (13, 32, 64), (3, 64, 32), (1, 32, 32)])
def test_everything_stored_is_the_same_for_every_grid(
    whole: Chain, damaged: NDArray[np.uint8], tmp_path: Path, block: Vec3
) -> None:
    source = _stored(tmp_path / "raw", damaged)
    Chain(source, tmp_path, BlockGrid(whole.grid.extent, block)).require_same(whole)


@pytest.mark.parametrize("executor", [PicklingExecutor(), ThreadsExecutor(2)])
def test_everything_stored_is_the_same_on_every_executor(
    whole: Chain, damaged: NDArray[np.uint8], tmp_path: Path, executor: Executor
) -> None:
    source = _stored(tmp_path / "raw", damaged)
    Chain(source, tmp_path, BlockGrid(whole.grid.extent, (4, 32, 32)), executor).require_same(whole)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_missing_slices_are_found_however_many_there_are_and_whatever_the_blocks(tmp_path: Path, level: int) -> None:
    made = Phantom((30, 150, 170), 3)
    raw = made.raw(made.box)
    raw[:, :, :30] = raw[:3] = raw[27:] = 0  # padding
    raw[8:19, :100] = raw[8:19, 104:] = level
    raw[8:19, 100:104] = 200  # a label is no tissue
    found = []
    for name, block in (("one", (30, 64, 64)), ("cut", (7, 32, 32))):
        (tmp_path / name).mkdir()
        chain = Chain(_stored(tmp_path / name / "raw", raw), tmp_path / name, BlockGrid((30, 38, 43), block))
        found.append(chain.arrays["damage"])
    np.testing.assert_array_equal(found[0], found[1])
    missing = found[0] & MISSING > 0
    assert missing[8:19, :, 8:].all() and not missing[:, :, :6].any()
    assert not missing[:3].any() and not missing[27:].any() and missing[3:27].sum() == missing[8:19].sum()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_wide_and_float_data_have_damage_too(
    whole: Chain, damaged: NDArray[np.uint8], tmp_path: Path, dtype: str
) -> None:
    wide = (damaged.astype(np.float64) * (200 if dtype == "uint16" else 1 / 255)).astype(dtype)
    found = Chain(_stored(tmp_path / "raw", wide), tmp_path, whole.grid).arrays["damage"]
    assert ((found > 0) == (whole.arrays["damage"] > 0)).mean() > 0.97


@pytest.mark.parametrize("shape", [(1, 150, 170), (2, 30, 9), (5, 1, 1)])
def test_tiny_and_empty_volumes_are_sound(tmp_path: Path, shape: Vec3) -> None:
    tissue = Phantom(shape, 3)
    for name, values in (("tissue", tissue.raw(tissue.box)), ("empty", np.zeros(shape, np.uint8))):
        (tmp_path / name).mkdir()
        chain = Chain(_stored(tmp_path / name / "raw", values), tmp_path / name, cell_grid(shape, CELL))
        assert not chain.arrays["damage"].any()


def test_values_that_are_no_numbers_are_refused_by_their_box(tmp_path: Path) -> None:
    values = np.ones((4, 20, 20), np.float32)
    values[2, 3, 3] = np.nan
    source = _stored(tmp_path / "raw", values)
    cells = cell_volume(str(tmp_path / "mean"), source, CELL)
    grid = cell_grid(source.shape, CELL)
    grey = sample_grey(source.cropped(replace(source.box, stop=(2, 20, 20))))[0]
    levels = BlockTables(tmp_path / "levels")
    stage = InspectStage(source, grey, CELL, cells, cells, levels, upstream="raw", grid=grid)
    with pytest.raises(BadInput, match=r"1 voxels in box .* are NaN or infinite"):
        stage(grid[0])


def test_cells_have_their_own_size_and_place(whole: Chain) -> None:
    mean = whole.inspected.mean
    assert mean.shape == (13, 38, 43)
    assert mean.voxel_size_nm == (10.0, 40.0, 40.0)
    assert mean.offset_nm == (0.0, 15.0, 15.0)


def test_blocks_of_cells_read_a_bounded_part_of_a_volume() -> None:
    for side in (2, 4, 8, 16, 32):
        grid = cell_grid((10_000, 50_000, 50_000), (1, side, side))
        z, y, x = grid.block
        assert y % TILE == x % TILE == 0
        assert z * y * x * side * side <= 2**26


def test_what_decides_the_result_is_in_the_fingerprint(whole: Chain) -> None:
    found, compared, inspected = whole.found, whole.compared, whole.inspected
    others = [
        (inspected, replace(inspected, cell=(1, 8, 8))),
        (inspected, replace(inspected, upstream="other")),
        (compared, replace(compared, max_gap=2)),
        (found, replace(found, sensitivity=2.0)),
        (found, replace(found, upstream="other")),
    ]
    for stage, other in others:
        assert stage.fingerprint != other.fingerprint


def test_what_is_below_the_grey_scale_is_dark_and_not_missing() -> None:
    raw = np.full((2, 8, 8), 700, np.uint16)
    raw[0], raw[1, :4] = 3, 0
    scale = GreyScale(black=100.0, white=1000.0)
    levels = inspect.grey_levels(scale, raw)
    assert levels.dtype == np.uint8
    assert (levels[0] == 1).all() and (levels[1, :4] == 0).all() and (levels[1, 4:] == 170).all()
