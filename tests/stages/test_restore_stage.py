"""The restore stage: stored arrays and tables for any blocks, data and restorers; what it reads and refuses."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_run import write_volume

from pipeline.denoise.ops.cells import inspected
from pipeline.denoise.ops.restore import RestoreOp
from pipeline.denoise.ops.slices import normalised
from pipeline.denoise.relevelling import Relevelling
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.stage import run_block
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale
from pipeline.image.mask import CoarseMask, open_mask
from pipeline.model.restorer import NETWORKS, load_restorer
from pipeline.model.restorer_spec import RestorerKind, RestorerSpec
from pipeline.model.tensors import to_bytes
from pipeline.store.tables import BlockTables, write_table
from pipeline.store.volume import Volume, open_volume

SHAPE = (10, 42, 50)
FACTOR = (1, 4, 4)
SIZE = (30.0, 8.0, 8.0)
OPTIONS: dict[RestorerKind, dict[str, Any]] = {
    "interpolation": {"widths": [2, 3, 4], "taps": 3},
    "noise2noise": {"width": 3},
}
MULTIPLE = {"interpolation": 4, "noise2noise": 32}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def restorer(folder: Path, kind: RestorerKind = "interpolation", seed: int = 0) -> tuple[str, RestorerSpec]:
    """A restorer of random weights: its path and specification."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    state = NETWORKS[kind](**OPTIONS[kind]).state_dict()
    content = to_bytes({name: value + 0.02 * torch.randn_like(value) for name, value in state.items()})
    (folder / "tiny.safetensors").write_bytes(content)
    spec = RestorerSpec(
        name="tiny",
        kind=kind,
        options=OPTIONS[kind],
        multiple=MULTIPLE[kind],
        patch=(32, 32),
        overlap=(8, 8),
        weights="tiny.safetensors",
        sha256=sha256(content).hexdigest(),
    )
    (folder / "tiny.json").write_text(spec.model_dump_json())
    return str(folder / "tiny.json"), spec


def tissue() -> NDArray[np.uint8]:
    """Smooth noise that goes on from slice to slice, with padding at one side."""
    values = np.random.default_rng(3).normal(size=SHAPE)
    for axis in range(3):
        values = values + np.roll(values, 1, axis) + np.roll(values, 2, axis)
    grey = np.clip(128 + 22 * values, 1, 255).astype(np.uint8)
    grey[:, :, :10] = 0
    return grey


def flagged() -> NDArray[np.uint8]:
    """Damage across faces, edges and corners of blocks, a whole slice, a run at the end, a run that is too long."""
    damage = np.zeros(tuple(-(-n // f) for n, f in zip(SHAPE, FACTOR, strict=True)), np.uint8)
    damage[4:6, 3:6, 4:8] = 2
    damage[2] = 1
    damage[8:] = 4
    damage[4:9, 9:, 10:] = 8
    return damage


def stage_of(
    folder: Path,
    raw: NDArray[Any],
    model: tuple[str, RestorerSpec],
    block: Vec3 = SHAPE,
    damage: NDArray[np.uint8] | None = None,
    **changes: Any,
) -> RestoreStage:
    """A stage over ``raw`` with its arrays made."""
    folder.mkdir(parents=True, exist_ok=True)
    source = open_volume(write_volume(folder / "raw", raw, SIZE))
    mask = None
    if damage is not None:
        mask = open_mask(write_volume(folder / "damage", damage, None, (4, 8, 8)), source, "the mask")
        assert mask.factor == FACTOR
    path, spec = model
    grid = BlockGrid(SHAPE, block)
    restored, replaced = (stored_volume(str(folder / n), grid, "uint8", source, block) for n in ("restored", "where"))
    create_arrays([restored, replaced], grid)
    op = RestoreOp(SHAPE, spec.patch, spec.overlap, spec.multiple, spec.channels, 3, 24.0, (8.0, 8.0))
    tables = BlockTables(folder / "tables" / "restore")
    arrays = (restored, replaced, tables)
    stage = RestoreStage(source, GreyScale(), mask, "d", None, *arrays, op, path, spec, "cpu", upstream="s", grid=grid)
    return replace(stage, **changes)


def ran(stage: RestoreStage) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """The stage over all its blocks, last one first, on a worker: the arrays and the counts of all slices."""
    travelled: RestoreStage = pickle.loads(pickle.dumps(stage))
    travelled.warm_up()
    results = [run_block(travelled, number) for number in reversed(range(len(stage.grid)))]
    assert [result.error for result in results if result.error] == []
    counts = {name: np.zeros(SHAPE[0], np.int64) for name in ("replaced", "left")}
    for number in range(len(stage.grid)):
        rows = stage.tables.read(number)
        for name, total in counts.items():
            np.add.at(total, rows["z"], rows[name])
    restored, replaced = (volume.read(volume.box) for volume in (stage.restored, stage.replaced))
    assert sum(result.count for result in results) == np.count_nonzero(replaced) == counts["replaced"].sum()
    return restored, replaced, counts


@pytest.mark.parametrize(("kind", "masked"), [("interpolation", True), ("noise2noise", True), ("noise2noise", False)])
def test_any_blocks_store_the_same(kind: RestorerKind, masked: bool, tmp_path: Path) -> None:
    model, damage = restorer(tmp_path / "model", kind), flagged() if masked else None
    restored, replaced, counts = ran(stage_of(tmp_path / "whole", tissue(), model, damage=damage))
    for block in [(4, 16, 20), (3, 42, 7), (1, 11, 50)]:
        other = ran(stage_of(tmp_path / str(block[0]), tissue(), model, block, damage))
        np.testing.assert_array_equal(other[0], restored)
        np.testing.assert_array_equal(other[1], replaced)
        assert {name: n.tolist() for name, n in other[2].items()} == {name: n.tolist() for name, n in counts.items()}
    changed = restored != tissue()
    assert changed.mean() > 0.1 and not changed[replaced == 0].any()
    assert not restored[:, :, :9].any()  # padding
    if kind == "interpolation":
        long = np.argwhere(flagged().repeat(4, 1).repeat(4, 2)[:, :42, :50][5] == 8)
        assert counts["left"].tolist() == [0, 0, 0, 0, *[len(long)] * 6]


def test_nothing_damaged_is_a_copy_that_reads_each_voxel_once_and_loads_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = restorer(tmp_path / "model")
    stage = stage_of(tmp_path / "run", tissue(), model, (4, 16, 20), np.zeros_like(flagged()))
    Path(model[0]).unlink()
    boxes: list[tuple[str, Box]] = []
    read = Volume.read
    monkeypatch.setattr(Volume, "read", lambda volume, box: boxes.append((volume.url, box)) or read(volume, box))
    for number in range(len(stage.grid)):
        result = run_block(stage, number)
        assert (result.error, result.count) == (None, 0)
        assert stage.tables.read(number)["z"].size == 0
    assert sum(box.size for url, box in boxes if url == stage.source.url) == stage.source.box.size
    np.testing.assert_array_equal(stage.restored.read(stage.restored.box), tissue())
    assert not stage.replaced.read(stage.replaced.box).any()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_data_become_grey_levels_in_which_zero_is_padding_alone(dtype: str, tmp_path: Path) -> None:
    raw = tissue().astype(dtype)
    raw[raw > 0] += 300
    raw[0, 0, 20] = 3
    scale = GreyScale(black=300.0, white=400.0)
    stage = stage_of(tmp_path / "run", raw, restorer(tmp_path / "model"), damage=np.zeros_like(flagged()), grey=scale)
    expected = np.where(raw == 0, 0, np.clip(np.floor((raw.astype(np.float32) - 300) * 2.55 + 0.5), 1, 255))
    restored = ran(stage)[0]
    assert np.abs(restored - expected).max() <= 1 and restored[0, 0, 20] == 1
    np.testing.assert_array_equal(restored == 0, raw == 0)


def test_slices_are_evened_out_before_and_wherever_nothing_is_damaged(tmp_path: Path) -> None:
    table = np.stack([np.linspace(0.5, 1.5, SHAPE[0]), np.linspace(-9, 9, SHAPE[0])], axis=1).astype(np.float32)
    write_table(tmp_path / "slices-1.npy", table)
    model, even = restorer(tmp_path / "model"), normalised(tissue(), table)
    given = {"block": (4, 16, 20), "damage": flagged(), "slices": tmp_path / "slices-1.npy"}
    one = ran(stage_of(tmp_path / "one", tissue(), model, **given))
    two = ran(stage_of(tmp_path / "two", even, model, damage=flagged()))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_the_fingerprint_is_of_all_that_decides_the_result(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "run", tissue(), restorer(tmp_path / "model"), damage=flagged())
    mask = stage.damage
    assert mask is not None
    others = [
        replace(stage, upstream="t"),
        replace(stage, damage_fingerprint="e"),
        replace(stage, damage=None),
        replace(stage, damage=CoarseMask(mask.volume, mask.extent, (1, 4, 5))),
        replace(stage, slices=Path("slices-1.npy")),
        replace(stage, slices=Path("slices-2.npy")),
        replace(stage, grey=GreyScale(black=1.0)),
        replace(stage, grid=BlockGrid(SHAPE, (4, 16, 20))),
        replace(stage, op=replace(stage.op, max_gap=2)),
        replace(stage, op=replace(stage.op, feather=8.0)),
        replace(stage, op=replace(stage.op, pixel=(8.0, 4.0))),
        replace(stage, spec=restorer(tmp_path / "other", seed=1)[1]),
    ]
    assert len({stage.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    moved = replace(stage, device="cuda", model="elsewhere.json", op=replace(stage.op, batch=8))
    assert moved.fingerprint == stage.fingerprint


def test_a_worker_that_holds_other_weights_of_that_name_refuses_to_compute(tmp_path: Path) -> None:
    model = restorer(tmp_path / "model")
    load_restorer(model[0])
    stage = stage_of(tmp_path / "run", tissue(), restorer(tmp_path / "model", seed=1), damage=flagged())
    error = run_block(stage, 0).error
    assert error is not None and "was planned with" in error and "Restart the workers" in error


def test_nan_in_the_halo_of_damage_is_refused_with_its_box(tmp_path: Path) -> None:
    raw = tissue().astype(np.float32)
    raw[3, 20, 20] = np.nan
    damage = np.zeros_like(flagged())
    damage[4, 5, 5] = 1
    stage = stage_of(tmp_path / "run", raw, restorer(tmp_path / "model"), (4, 42, 50), damage)
    error = run_block(stage, 1).error
    assert error is not None and "1 voxels in box [1:8" in error


def test_a_block_that_is_restored_again_stores_the_same(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "run", tissue(), restorer(tmp_path / "model"), (4, 16, 20), flagged())
    before = ran(stage)
    after = ran(stage)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_only_the_chosen_kinds_are_replaced_and_all_blocks_agree(tmp_path: Path) -> None:
    raw, damage, model = tissue(), flagged(), restorer(tmp_path / "model")
    chosen = 2 | 4
    one = ran(stage_of(tmp_path / "one", raw, model, damage=damage, kinds=chosen))
    cut = ran(stage_of(tmp_path / "cut", raw, model, (5, 16, 24), damage, kinds=chosen))
    np.testing.assert_array_equal(one[0], cut[0])
    np.testing.assert_array_equal(one[1], cut[1])
    fine = damage.repeat(FACTOR[0], 0).repeat(FACTOR[1], 1).repeat(FACTOR[2], 2)[tuple(map(slice, SHAPE))]
    other = (fine > 0) & (fine & chosen == 0)
    assert one[1].any() and other.any() and not one[1][other].any()


def relevelling_of(folder: Path, raw: NDArray[np.uint8], slices: Path | None = None) -> Relevelling:
    """Of everything with bit 8 and without bit 2; the folder has the map."""
    mean = open_volume(write_volume(folder / "mean", inspected(raw, FACTOR)[0], None, (4, 8, 8)))
    return Relevelling(mean, open_volume(str(folder / "damage")), slices, side=4, kinds=8, not_of=2, max_gap=3)


def faint_values() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The tissue with a faint region in slice 6, and the map of it: bit 8, and bit 2 too where it is to be replaced."""
    raw = tissue()
    raw[6, 16:] = np.where(raw[6, 16:] > 0, raw[6, 16:] // 3 + 20, 0)
    damage = np.zeros_like(flagged())
    damage[6, 4:] = 8  # from where a block begins
    damage[6, 5:7, 6:9] = 10
    return raw, damage


def test_a_faint_region_is_relevelled_beside_what_is_replaced_and_all_blocks_agree(tmp_path: Path) -> None:
    raw, model = tissue(), restorer(tmp_path / "model")
    faint, damage = faint_values()
    made = []
    for name, block in (("one", SHAPE), ("cut", (5, 16, 24))):
        stage = stage_of(tmp_path / name, faint, model, block, damage, kinds=2)
        levels = relevelling_of(tmp_path / name, faint)
        assert replace(stage, relevelling=levels).fingerprint != stage.fingerprint
        alone = levels(faint, Box.of_shape(SHAPE))
        np.testing.assert_array_equal(alone[6, 22:26, 26:34], faint[6, 22:26, 26:34])
        made.append(ran(replace(stage, relevelling=levels)))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])
    grey, where = made[0][:2]
    filled = raw[6] > 0
    assert where[6, 18:][filled[18:]].mean() > 240 and not where[6, :14].any() and not np.delete(where, 6, 0).any()
    np.testing.assert_array_equal(grey[where == 0], faint[where == 0])
    kept = np.zeros_like(filled)
    kept[18:] = filled[18:]
    kept[18:30, 20:38] = False  # replaced, with a rim
    before, after = (np.abs(array[6].astype(int) - raw[6])[kept].mean() for array in (faint, grey))
    assert after < 15 < 40 < before


def test_between_what_is_replaced_a_faint_region_is_relevelled_too(tmp_path: Path) -> None:
    faint, damage = faint_values()
    damage[6, 9, 11] = 10  # the box around both places holds much that is only faint
    stage = stage_of(tmp_path / "run", faint, restorer(tmp_path / "model"), damage=damage, kinds=2)
    other = ran(stage)[1] == 0
    levels = relevelling_of(tmp_path / "run", faint)
    grey, where, _ = ran(replace(stage, relevelling=levels))
    wanted = levels(faint, Box.of_shape(SHAPE))
    between = np.s_[6, 20:40, 24:48]
    assert (other & (wanted != faint))[between].mean() > 0.3
    np.testing.assert_array_equal(grey[other], wanted[other])
    np.testing.assert_array_equal(where[other] > 0, (wanted != faint)[other])


def test_faint_regions_get_the_levels_of_slices_that_are_evened_out(tmp_path: Path) -> None:
    faint, damage = faint_values()
    table = np.tile(np.array([1, 0], np.float32), (SHAPE[0], 1))
    table[[5, 7]] = 0.8, -9
    write_table(tmp_path / "slices-1.npy", table)
    model, made = restorer(tmp_path / "model"), []
    for name, raw, slices in (("table", faint, tmp_path / "slices-1.npy"), ("even", normalised(faint, table), None)):
        stage = stage_of(tmp_path / name, raw, model, (5, 16, 24), damage, kinds=2, slices=slices)
        made.append(ran(replace(stage, relevelling=relevelling_of(tmp_path / name, raw, slices))))
    region = np.s_[6, 18:, 10:]
    assert (made[1][0] != faint)[region].mean() > 0.9
    assert np.abs(made[0][0].astype(int) - made[1][0]).max() < 8  # means of cells are rounded before or after
