"""Runs whose input is restored first: what is replaced, what the network sees, what is recorded and made again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import Teramito
from numpy.typing import NDArray
from tiny_restorer import SHAPE, damaged_values, denoise, whole, write_tiny_restorer
from tiny_run import Result, arguments, job_of, phantom_values, result_of, run_here, settings, write_volume

from flows.reports.restoration import restored_page
from pipeline.denoise.ops.damage import MISSING
from pipeline.denoise.sheet import write_restored_sheet
from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor
from pipeline.engine.finished import WRITERS, open_complete
from pipeline.engine.step import run_step
from pipeline.errors import BadInput, RunConflict
from pipeline.run.verify import verify
from pipeline.store.formats.writer import KEY, Writer, writer_of_image, writer_of_mip

ONE_BLOCK = {"block.shape": list(SHAPE)}
CUT = {"block.shape": [8, 32, 32]}  # the damaged region lies across faces, edges and a corner of these
LAYERS = {"export.layers": ["raw", "restored", "replaced", "segmentation"], "export.chunk": [8, 32, 32]}
LEFT = [12, 13, 14, 15]  # a gap of four slices where three are bridged


@dataclass(frozen=True)
class Places:
    """Addresses; ``raw`` is ``sound`` with what ``mask`` marks damaged."""

    sound: str
    raw: str
    mask: str
    restorer: Path
    model: Path

    def values(self, output: Path, *changes: dict[str, Any]) -> dict[str, Any]:
        """The configuration of a run that restores what the mask marks."""
        chosen = {**ONE_BLOCK, **denoise(self.restorer, self.mask)}
        for each in changes:
            chosen |= each
        return settings(self.raw, output, self.model, chosen)


def bytes_of(folder: Path) -> dict[str, str]:
    """The hash of every file."""
    return {str(p): sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def restored_of(directory: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The grey levels, and 255 where they were replaced."""
    return whole(directory / "arrays" / "restored"), whole(directory / "arrays" / "replaced")


def restore_only(values: dict[str, Any]) -> None:
    """The steps of a run up to the image that the network would be shown."""
    job = job_of(values)
    with job.opened():
        for step in job.steps:
            run_step(job.directory, step, SerialExecutor())
            if step.name == "restore":
                break


def refusal(path: Path) -> str:
    """What is said of an array of which no block is done."""
    with pytest.raises(BadInput) as refused:
        open_complete(str(path))
    return str(refused.value)


def report_of(directory: Path) -> Any:
    return json.loads((directory / "report.json").read_text())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Places:
    folder = tmp_path_factory.mktemp("places")
    sound, raw, flagged = damaged_values()
    return Places(
        write_volume(folder / "sound", sound),
        write_volume(folder / "raw", raw),
        write_volume(folder / "mask", flagged, None),
        write_tiny_restorer(folder / "restorer"),
        tiny_model,
    )


@pytest.fixture(scope="module")
def reference(places: Places, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The run as one block, which leaves its input as it was."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    before = bytes_of(Path(places.raw).parent)
    made = run_here(places.values(folder, LAYERS))
    assert bytes_of(Path(places.raw).parent) == before
    return folder, made


@pytest.fixture(autouse=True)
def no_pictures(reference: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the reference has them; they take as long as a run."""
    monkeypatch.setattr("pipeline.denoise.outcome.write_restored_sheet", lambda _stage, _path, _sums: False)


@pytest.fixture
def copied(reference: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(reference[0], tmp_path / "run")
    return tmp_path / "run"


def test_every_array_and_layer_states_the_stage_that_its_place_and_name_tell(places: Places, tmp_path: Path) -> None:
    found = {**ONE_BLOCK, **denoise(places.restorer), **LAYERS}
    job = job_of(settings(places.raw, tmp_path / "run", places.model, found))
    with job.opened():
        for step in job.steps:
            step.prepare()
    (tmp_path / "run" / "ledgers").mkdir()
    written = {Path(volume.url): step.stages[0] for step in job.steps for volume in step.arrays}
    assert {path.name for path in written} == set(WRITERS)
    for path, stage in written.items():
        assert writer_of_image(path) == Writer(stage.name, path.name, stage.grid)
    layers = [stage for step in job.steps if step.name == "export" for stage in step.stages]
    for stage in layers:
        layer = Path(stage.level.target.url)
        assert writer_of_mip(layer, str(stage.level.mip)) == Writer(stage.name, layer.name, stage.grid)
    for path in (*written, *(Path(stage.level.target.url) for stage in layers)):
        stated, metadata = refusal(path), path / ("info" if path.parent.name == "precomputed" else "0/zarr.json")
        metadata.write_text(metadata.read_text().replace(f'"{KEY}"', '"unknown"'))
        assert refusal(path) == stated


def test_what_is_flagged_is_replaced_and_nothing_else_but_a_rim(reference: tuple[Path, Result]) -> None:
    sound, raw, flagged = damaged_values()
    restored, replaced = restored_of(reference[0])
    damaged = flagged.repeat(4, 1).repeat(4, 2) > 0
    too_long = np.zeros_like(damaged)
    too_long[LEFT] = damaged[LEFT]
    assert set(np.unique(replaced)) == {0, 255}
    np.testing.assert_array_equal(restored[replaced == 0], raw[replaced == 0])
    assert (replaced[damaged & ~too_long] == 255).all() and not replaced[too_long].any()
    # The feather of 50 nm is five voxels, in the plane alone.
    assert not replaced[7:9, :14].any() and not replaced[7:9, :, 58:].any() and replaced[8, 17, 30] == 255
    assert (restored[replaced > 0] > 0).all()
    for z in (0, 5, 8, 19):  # the first and the last are made of one neighbour
        error = np.abs(restored[z].astype(int) - sound[z])[replaced[z] > 0]
        assert error.mean() < 20 < np.abs(raw[z].astype(int) - sound[z])[replaced[z] > 0].mean()


def test_the_report_counts_what_was_replaced_and_what_is_left(reference: tuple[Path, Result]) -> None:
    restored = report_of(reference[0])["restored"]
    replaced = restored_of(reference[0])[1] > 0
    assert restored["restorer"] == "tiny-interpolation"
    assert restored["replaced_voxels"] == np.count_nonzero(replaced)
    assert restored["share"] == pytest.approx(replaced.mean())
    assert (restored["slices"], restored["whole_slices_z"]) == (5, [0, 5, 19])
    assert (restored["left_voxels"], restored["slices_left"]) == (4 * 28 * 16, 4)
    assert restored["slices_left_z"] == LEFT
    assert (reference[0] / "restored.png").read_bytes().startswith(b"\x89PNG")


def test_the_layers_are_the_image_without_damage_and_where_it_was_replaced(
    reference: tuple[Path, Result], places: Places
) -> None:
    restored, replaced = restored_of(reference[0])
    layers = reference[0] / "precomputed"
    np.testing.assert_array_equal(whole(layers / "restored"), restored)
    np.testing.assert_array_equal(whole(layers / "replaced"), replaced)
    np.testing.assert_array_equal(whole(layers / "raw"), whole(Path(places.raw)))


def test_the_network_sees_the_restored_image_and_finds_more_of_what_is_there(
    reference: tuple[Path, Result], places: Places, tmp_path: Path
) -> None:
    sound, damaged = (
        run_here(settings(where, tmp_path / name, places.model, ONE_BLOCK))
        for name, where in (("sound", places.sound), ("damaged", places.raw))
    )
    truth = sound.segmentation > 0

    def agreement(found: Result) -> float:
        other = found.segmentation > 0
        return float(np.count_nonzero(truth & other) / np.count_nonzero(truth | other))

    assert agreement(damaged) < 0.7
    assert agreement(reference[1]) > 0.8
    assert agreement(reference[1]) > 0.5 * (1 + agreement(damaged))  # half of what the damage cost is back


@pytest.mark.parametrize(
    ("block", "executor"),
    [(CUT["block.shape"], ThreadsExecutor(2)), ([7, 23, 64], PicklingExecutor())],
)
def test_any_blocks_and_executors_give_the_same(
    block: list[int], executor: Executor, reference: tuple[Path, Result], places: Places, tmp_path: Path
) -> None:
    made = run_here(places.values(tmp_path / "run", {"block.shape": block}), executor)
    made.require_same(reference[1])
    for one, other in zip(restored_of(tmp_path / "run"), restored_of(reference[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    one, other = (report_of(folder)["restored"] for folder in (tmp_path / "run", reference[0]))
    assert one | {"fingerprint": ""} == other | {"fingerprint": ""}


def test_anisotropic_data_give_the_same_for_any_blocks(places: Places, tmp_path: Path) -> None:
    _, raw, flagged = damaged_values()
    mask = tmp_path / "mask.tif"  # another format, as large as the volume
    tifffile.imwrite(mask, flagged.repeat(4, 1).repeat(4, 2))
    where = write_volume(tmp_path / "raw", raw, (50.0, 5.0, 5.0))
    made = []
    for number, block in enumerate([ONE_BLOCK, {"block.shape": [6, 24, 40]}]):
        given = settings(where, tmp_path / str(number), places.model, {**denoise(places.restorer, str(mask)), **block})
        made.append((run_here(given), restored_of(tmp_path / str(number))))
    made[1][0].require_same(made[0][0])
    for one, other in zip(made[1][1], made[0][1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert made[0][1][1][8, 12:].any() and not made[0][1][1][8, :10].any()  # the feather is ten voxels here


def test_a_longer_gap_is_bridged_where_it_is_allowed(places: Places, tmp_path: Path) -> None:
    run_here(places.values(tmp_path / "run", CUT, {"denoise.max_gap": 4, "denoise.feather_nm": 0}))
    restored = report_of(tmp_path / "run")["restored"]
    assert (restored["left_voxels"], restored["slices_left_z"]) == (0, [])
    replaced = restored_of(tmp_path / "run")[1] > 0
    np.testing.assert_array_equal(replaced, damaged_values()[2].repeat(4, 1).repeat(4, 2) > 0)


def test_noise2noise_restores_every_voxel_also_of_a_single_slice_and_under_a_mask_of_everything(
    places: Places, tmp_path: Path
) -> None:
    restorer = write_tiny_restorer(tmp_path / "restorer", "noise2noise")
    where = write_volume(tmp_path / "raw", phantom_values((1, 64, 64)))
    everything = write_volume(tmp_path / "mask", np.ones((1, 16, 16), np.uint8), None)
    made = []
    for number, (mask, block) in enumerate([(None, [1, 64, 64]), (everything, [1, 32, 40])]):
        given = settings(where, tmp_path / str(number), places.model, {**denoise(restorer, mask), "block.shape": block})
        run_here(given)
        made.append(restored_of(tmp_path / str(number)))
        assert report_of(tmp_path / str(number))["restored"]["whole_slices_z"] == [0]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert (made[0][1] == 255).all()
    assert not np.array_equal(made[0][0], whole(Path(where)))


def _chunk(directory: Path, name: str) -> Path:
    return min(path for path in (directory / "arrays" / name / "0" / "c").rglob("*") if path.is_file())


def test_verify_finds_damaged_chunks_and_its_remedy_works(
    copied: Path, reference: tuple[Path, Result], places: Places, teramito: Teramito
) -> None:
    files = {path: path.read_bytes() for path in copied.glob("arrays/res*/0/c/**/*") if path.is_file()}
    before = {path.name: path.stat().st_mtime_ns for path in (copied / "ledgers").iterdir()}
    for name in ("restored", "replaced"):
        chunk = _chunk(copied, name)
        content = chunk.read_bytes()
        chunk.unlink()
        said = teramito("verify", str(copied))
        assert said.code == 1
        assert "restored: block 0 [0:20,0:64,0:64] does not hold what was replaced" in said.err
        chunk.write_bytes(content[:30])
        said = teramito("verify", str(copied))
        assert said.code == 1
        assert f"arrays/{name}" in said.err and "must be readable" in said.err
        assert "delete the stage's ledger in" in said.err
    (copied / "ledgers" / "restore.ledger").unlink()
    run_here(places.values(copied, LAYERS)).require_same(reference[1])
    assert teramito("verify", str(copied)).code == 0
    assert {path: path.read_bytes() for path in files} == files
    after = {path.name: path.stat().st_mtime_ns for path in (copied / "ledgers").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[ledger] > before[ledger] for ledger in before)


@pytest.mark.parametrize("name", ["restored.png", "restored.json"])
def test_pictures_and_counts_that_are_deleted_are_made_again_by_the_same_command_and_nothing_else_is(
    name: str,
    copied: Path,
    reference: tuple[Path, Result],
    places: Places,
    teramito: Teramito,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.denoise.outcome.write_restored_sheet", write_restored_sheet)
    given = arguments(
        places.raw, copied, places.model, {**ONE_BLOCK, **denoise(places.restorer, places.mask), **LAYERS}
    )
    assert "nothing to do" in teramito("run", *given).out
    kept = {path: path.stat().st_mtime_ns for folder in ("arrays", "tables") for path in (copied / folder).rglob("*")}
    (copied / name).unlink()
    assert "not complete" in teramito("status", str(copied)).out
    assert teramito("run", *given).code == 0
    assert (copied / name).read_bytes() == (reference[0] / name).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "nothing to do" in teramito("run", *given).out


def test_a_zarr_mask_that_is_mended_in_place_is_noticed(places: Places, tmp_path: Path) -> None:
    flagged = damaged_values()[2]
    mask = write_volume(tmp_path / "mask", flagged, None)
    given = places.values(tmp_path / "run", denoise(places.restorer, mask))
    job = job_of(given)
    with job.opened():
        run_step(job.directory, job.steps[0], SerialExecutor())
    flagged[5] = flagged[7:9] = 0
    write_voxels(tmp_path / "mask", flagged)  # the same metadata
    with pytest.raises(RunConflict, match=r"changed: damage\.files"):
        job_of(given).require_place()


def write_voxels(path: Path, values: NDArray[Any]) -> None:
    from pipeline.store.volume import open_volume

    volume = open_volume(str(path))
    volume.write(volume.box, values)


def test_another_denoising_in_the_same_directory_is_refused_by_name(copied: Path, places: Places) -> None:
    for changes, named in [
        ({"denoise.feather_nm": 20.0}, r"changed: denoise\.feather_nm: 50\.0 -> 20\.0"),
        (
            {"denoise.mode": "off", "denoise.mask": None, "export.layers": ["raw", "segmentation"]},
            r"changed: .*denoise",
        ),
        ({"denoise.model": str(places.model.parent / "other" / "restorer.json")}, r"changed: .*restorer_sha256"),
    ]:
        write_tiny_restorer(places.model.parent / "other", seed=1)
        with pytest.raises(RunConflict, match=named):
            job_of(places.values(copied, LAYERS, changes)).require_place()
    job_of(places.values(copied, LAYERS, {"cluster.kind": "none"})).require_place()


def test_a_run_without_denoising_is_recorded_as_before_and_is_not_taken_for_one_with_it(
    places: Places, tmp_path: Path
) -> None:
    given = settings(places.raw, tmp_path / "run", places.model, {**ONE_BLOCK, "export.layers": ["segmentation"]})
    job = job_of(given)
    recorded = job.manifest["settings"]
    assert not {"denoise", "restorer_sha256", "damage"} & recorded.keys()
    every = job_of({**given, "export": {}}).manifest["settings"]["export"]["layers"]
    assert every == ["raw", "semantic", "boundary", "segmentation"]
    with job.opened():
        run_step(job.directory, job.steps[0], SerialExecutor())
    job_of({**given, "denoise": "off"}).require_place()
    with pytest.raises(RunConflict, match=r"changed: .*denoise: None -> "):
        job_of(places.values(tmp_path / "run")).require_place()


def test_a_mask_that_was_changed_is_noticed(places: Places, tmp_path: Path) -> None:
    flagged = damaged_values()[2]
    tifffile.imwrite(tmp_path / "mask.tif", flagged)
    given = places.values(tmp_path / "run", denoise(places.restorer, str(tmp_path / "mask.tif")))
    job = job_of(given)
    with job.opened():
        run_step(job.directory, job.steps[0], SerialExecutor())
    tifffile.imwrite(tmp_path / "mask.tif", 1 - np.minimum(flagged, 1))
    with pytest.raises(RunConflict, match=r"changed: damage\.file"):
        job_of(given).require_place()


@pytest.fixture(scope="module")
def detected(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has found the damage itself, and evened out its slices."""
    folder = tmp_path_factory.mktemp("detected") / "run"
    run_here(places.values(folder, {"denoise.mask": None, "denoise.normalise_slices": True}))
    return folder


def test_damage_is_found_without_a_mask_and_restored(detected: Path) -> None:
    flagged = damaged_values()[2]
    found = whole(detected / "arrays" / "damage")
    lasting = np.zeros(flagged.shape, bool)
    lasting[LEFT] = True  # of a gap that is too long nothing is known
    np.testing.assert_array_equal((found & MISSING > 0)[(flagged > 0) & ~lasting], True)
    assert np.count_nonzero(found[[1, 2, 3, 10, 11, 17]]) == 0
    replaced = restored_of(detected)[1]
    assert replaced[[0, 5, 19]].all() and replaced[7:9, 20:44, 16:52].all()
    restored = report_of(detected)["restored"]
    assert restored["damage_cells"]["missing"] == np.count_nonzero(found & MISSING)
    assert restored["whole_slices_z"] == [0, 5, 19]


def test_missing_slices_that_are_too_many_in_a_row_are_found_left_and_counted(places: Places, tmp_path: Path) -> None:
    raw = phantom_values(SHAPE)
    raw[3], raw[6:15] = 0, 0
    where = write_volume(tmp_path / "raw", raw)
    run_here(settings(where, tmp_path / "run", places.model, {**CUT, **denoise(places.restorer)}))
    restored = report_of(tmp_path / "run")["restored"]
    assert set(restored["slices_left_z"]) >= set(range(6, 15)) and restored["left_voxels"] >= 9 * 64 * 64
    assert restored["damage_cells"]["missing"] == 10 * 16 * 16 and 3 in restored["whole_slices_z"]
    assert f"| Slices with damage left | {restored['slices_left']} (z 6, 7, 8" in restored_page(restored, None)
    assert not restored_of(tmp_path / "run")[0][6:15].any()


def test_what_is_found_is_the_same_for_any_blocks_and_executors(detected: Path, places: Places, tmp_path: Path) -> None:
    chosen = {"denoise.mask": None, "denoise.normalise_slices": True, "block.shape": [7, 23, 64]}
    run_here(places.values(tmp_path / "run", chosen), PicklingExecutor()).require_same(result_of(detected))
    for name in ("mean", "texture", "damage", "restored", "replaced"):
        np.testing.assert_array_equal(whole(tmp_path / "run" / "arrays" / name), whole(detected / "arrays" / name))


def test_a_pale_thick_section_gets_its_neighbours_levels_and_keeps_its_content_for_any_blocks(
    places: Places, tmp_path: Path
) -> None:
    raw, z = phantom_values((9, 128, 128)), 4  # a wide region is one of 23 cells
    raw[z] = 130 + raw[z] // 3
    for beside in (z - 1, z + 1):  # a jump that is evened out
        raw[beside] = np.minimum(raw[beside], 243) + 12
    where = write_volume(tmp_path / "raw", raw, (40.0, 10.0, 10.0))
    made = []
    for name, block in (("one", [9, 128, 128]), ("cut", [4, 48, 72])):
        chosen = {"block.shape": block, **denoise(places.restorer, normalise_slices=True)}
        restore_only(settings(where, tmp_path / name, places.model, chosen))
        made.append((*restored_of(tmp_path / name), json.loads((tmp_path / name / "restored.json").read_text())))
    (restored, replaced, counted), other = made
    np.testing.assert_array_equal(other[0], restored)
    np.testing.assert_array_equal(other[1], replaced)
    assert other[2] | {"fingerprint": ""} == counted | {"fingerprint": ""}
    assert (replaced[z] > 0).mean() > 0.9 and counted["replaced_voxels"] == np.count_nonzero(replaced)
    wanted = restored[[z - 1, z + 1]].mean()
    assert abs(restored[z].mean() - wanted) < 4 < 30 < abs(raw[z].mean() - wanted)
    fine, own = (np.diff(image.astype(np.float64)).ravel() for image in (restored[z], raw[z]))
    assert np.corrcoef(fine, own)[0, 1] > 0.95  # 0.75 with the slice below


def test_a_corrected_copy_of_the_map_is_a_mask(detected: Path, places: Places, tmp_path: Path) -> None:
    shutil.copytree(detected / "arrays" / "damage", tmp_path / "map")
    corrected = whole(tmp_path / "map")
    corrected[5] = 0
    write_voxels(tmp_path / "map", corrected)
    restore_only(places.values(tmp_path / "run", {"denoise.mask": str(tmp_path / "map")}, CUT))
    replaced = restored_of(tmp_path / "run")[1]
    assert not replaced[5].any() and replaced[[0, 19]].all()


def test_detection_that_is_made_again_makes_all_after_it_again(
    detected: Path, places: Places, tmp_path: Path, teramito: Teramito
) -> None:
    shutil.copytree(detected, tmp_path / "run")
    ledgers = tmp_path / "run" / "ledgers"
    before = {path.stem: path.stat().st_mtime_ns for path in ledgers.iterdir()}
    (ledgers / "compare.ledger").unlink()
    assert "compare: not started" in teramito("verify", str(tmp_path / "run")).err
    given = places.values(tmp_path / "run", {"denoise.mask": None, "denoise.normalise_slices": True})
    run_here(given).require_same(result_of(detected))
    after = {path.stem: path.stat().st_mtime_ns for path in ledgers.iterdir()}
    assert {stage for stage in before if after[stage] == before[stage]} == {"inspect"}
    assert teramito("verify", str(tmp_path / "run")).code == 0


def test_dark_damage_does_not_change_how_the_network_sees_the_rest(places: Places, tmp_path: Path) -> None:
    sound, _, flagged = damaged_values()
    flagged[12:16] = 0
    dark = np.where(flagged.repeat(4, 1).repeat(4, 2) > 0, np.uint8(20), sound)
    raw, mask = write_volume(tmp_path / "raw", dark), write_volume(tmp_path / "mask", flagged, None)
    made = run_here(settings(raw, tmp_path / "run", places.model, denoise(places.restorer, mask)))
    wanted = run_here(settings(places.sound, tmp_path / "sound", places.model))
    both, either = (
        (made.segmentation > 0) & (wanted.segmentation > 0),
        (made.segmentation > 0) | (wanted.segmentation > 0),
    )
    assert np.count_nonzero(both) > 0.75 * np.count_nonzero(either)


def test_a_run_of_an_earlier_version_keeps_the_name_of_its_layer(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("pipeline.run.job.old_layer_names", lambda _directory: {"replaced": "damage"})
        begun = places.values(tmp_path / "run", LAYERS)
        run_here(begun)
    folder = tmp_path / "run"
    assert (folder / "precomputed" / "damage").is_dir()
    before = bytes_of(folder / "precomputed")
    (folder / "report.json").unlink()
    (folder / "ledgers" / "export-damage-mip0.ledger").unlink()
    run_here(begun)
    assert bytes_of(folder / "precomputed") == before
    assert not (folder / "precomputed" / "replaced").exists()
    job = job_of(places.values(folder, {**LAYERS, "export.layers": ["raw", "restored", "damage", "segmentation"]}))
    with job.opened():  # the same run
        assert verify(job.steps, job.directory) == []


def test_the_earlier_name_of_a_layer_still_asks_for_it(places: Places, tmp_path: Path) -> None:
    job = job_of(places.values(tmp_path / "run", {"export.layers": ["damage", "segmentation"]}))
    assert job.manifest["settings"]["export"]["layers"] == ["replaced", "segmentation"]
    assert {stage.name.split("-")[1] for stage in job.steps[-1].stages} == {"replaced", "segmentation"}
