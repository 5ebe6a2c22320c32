"""An array that a run has not finished, or that was damaged since, never passes for a whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Teramito
from tiny_run import arguments, ledger_lines, phantom_values, result_of, run_here, settings, write_volume

from pipeline.engine.finished import open_complete, remedy_of
from pipeline.errors import BadInput

BLOCKS = {"block.shape": [12, 32, 16]}  # five
SHAPE = (12, 32, 80)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A volume of five blocks."""
    return write_volume(tmp_path_factory.mktemp("raw") / "raw", phantom_values(SHAPE))


@pytest.fixture(scope="module")
def whole(raw: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_here(settings(raw, folder, tiny_model, BLOCKS))
    return folder


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "source")
    return tmp_path / "source"


def _forget(run: Path, stage: str, *numbers: int, reason: str = "") -> None:
    """Take blocks out of a ledger; with a reason, as failed ones."""
    ledger = run / "ledgers" / f"{stage}.ledger"
    header, *lines = ledger.read_text().splitlines()
    kept = [line for line in lines if int(line.split()[0]) not in numbers]
    failed = [f"{number} ! {reason}" for number in numbers if reason]
    ledger.write_text("\n".join([header, *kept, *failed, ""]))


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_instances_of_an_unfinished_prediction_are_refused_and_what_is_missing_is_named(
    source: Path, tmp_path: Path, teramito: Teramito
) -> None:
    _forget(source, "predict", 1, 3, 4, reason="OSError: the share is gone")
    before = _files(source)
    said = teramito("instances", f"{source}/arrays/semantic", f"{source}/arrays/boundary", str(tmp_path / "out"))
    said.refuses(
        f"{source}/arrays/semantic: 3 of 5 blocks of stage predict are missing in {source} "
        "([0:12,0:32,16:32], [0:12,0:32,48:64], [0:12,0:32,64:80])",
        "a missing block reads as zeros",
        f"Finish that run with the same command (teramito status {source}",
        "One failed with: OSError: the share is gone.",
    )
    assert not (tmp_path / "out").exists()
    assert _files(source) == before


def test_a_prediction_that_has_not_begun_or_is_half_written_is_unfinished(
    source: Path, tmp_path: Path, teramito: Teramito
) -> None:
    given = ["instances", f"{source}/arrays/semantic", f"{source}/arrays/boundary", str(tmp_path / "out")]
    ledger = source / "ledgers" / "predict.ledger"
    torn = ledger.read_bytes()[:-2]  # a line that another process is writing
    ledger.write_bytes(torn)
    teramito(*given).refuses("1 of 5 blocks of stage predict are missing")
    assert ledger.read_bytes() == torn
    ledger.unlink()
    teramito(*given).refuses("5 of 5 blocks of stage predict are missing", "and 2 more")
    assert not ledger.exists()


def test_a_crop_that_misses_no_block_is_taken(source: Path, tmp_path: Path, teramito: Teramito) -> None:
    _forget(source, "predict", 4)
    crop = "[:,:,0:64]"
    maps = [f"{source}/arrays/{name}{crop}" for name in ("semantic", "boundary")]
    assert teramito("instances", *maps, str(tmp_path / "out")).code == 0
    said = teramito("instances", *(name.replace("64", "65") for name in maps), str(tmp_path / "out2"))
    said.refuses("1 of 5 blocks of stage predict are missing", "[0:12,0:32,64:80]", "or crop to what is there")


@pytest.mark.parametrize(
    ("array", "stage"),
    [("segmentation", "relabel"), ("boundary/0", "predict")],
)
def test_each_array_is_held_to_the_stage_that_writes_it(array: str, stage: str, source: Path, tmp_path: Path) -> None:
    address = f"{source}/arrays/{array}"
    assert open_complete(address).shape == SHAPE
    _forget(source, stage, 2)
    with pytest.raises(BadInput, match=f"1 of 5 blocks of stage {stage} are missing"):
        open_complete(address)
    shutil.copytree(source / "arrays" / array.split("/")[0], tmp_path / "copy")
    assert open_complete(str(tmp_path / "copy")).shape == SHAPE  # no run beside it


def test_evaluate_and_convert_refuse_an_unfinished_segmentation(
    source: Path, tmp_path: Path, teramito: Teramito
) -> None:
    _forget(source, "relabel", 0)
    _forget(source, "export-segmentation-mip0", 0)
    for segmentation, stage in (("arrays/segmentation", "relabel"), ("precomputed/segmentation", "export-segm")):
        said = teramito("evaluate", f"{source}/{segmentation}", f"{source}/arrays/segmentation")
        said.refuses(f"blocks of stage {stage}", "are missing", "Finish that run")
        said = teramito("convert", f"{source}/{segmentation}", str(tmp_path / "copy.zarr"))
        said.refuses(f"blocks of stage {stage}", "are missing", "Finish that run")
    assert not (tmp_path / "copy.zarr").exists()


def test_a_layer_that_somebody_put_beside_those_of_a_run_is_taken(source: Path, teramito: Teramito) -> None:
    theirs = f"{source}/precomputed/theirs"
    assert teramito("convert", f"{source}/arrays/segmentation", f"precomputed://{theirs}").code == 0
    assert open_complete(f"precomputed://{theirs}").shape == SHAPE


@pytest.mark.parametrize("linked", ["run", "run/arrays", "run/arrays/segmentation"])
def test_an_unfinished_array_behind_a_link_is_unfinished(linked: str, source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(source / linked.removeprefix("run").lstrip("/"))
    address = str(link) + "run/arrays/segmentation".removeprefix(linked)
    assert open_complete(address).shape == SHAPE
    _forget(source, "relabel", 2)
    with pytest.raises(BadInput, match="1 of 5 blocks of stage relabel are missing"):
        open_complete(address)


def test_a_run_whose_arrays_lie_on_another_disk_is_held_to_its_ledgers(source: Path, tmp_path: Path) -> None:
    (source / "arrays").rename(tmp_path / "disk")
    (source / "arrays").symlink_to(tmp_path / "disk")
    _forget(source, "relabel", 2)
    with pytest.raises(BadInput, match="1 of 5 blocks of stage relabel are missing"):
        open_complete(f"{source}/arrays/segmentation")


def _unstated(run: Path, place: str, key: str = "teramito") -> None:
    """Take away what an array or a layer states of the stage that writes it, as earlier versions stated nothing."""
    path = run / place / ("0/zarr.json" if place.startswith("arrays") else "info")
    content = json.loads(path.read_bytes())
    del content.get("attributes", content)[key]
    path.write_text(json.dumps(content))


PLACES = [
    ("arrays/semantic", "predict"),
    ("arrays/segmentation", "relabel"),
    ("precomputed/segmentation", "export-segmentation-mip0"),
]


@pytest.mark.parametrize(("place", "stage"), PLACES)
def test_an_array_of_an_earlier_version_is_held_to_the_stage_of_its_name(place: str, stage: str, source: Path) -> None:
    _unstated(source, place)
    assert open_complete(f"{source}/{place}").shape == SHAPE
    _forget(source, stage, 0)
    with pytest.raises(BadInput, match=f"1 of .* blocks of stage {stage} are missing"):
        open_complete(f"{source}/{place}")


@pytest.mark.parametrize(("place", "stage"), PLACES)
def test_an_array_is_held_to_the_stage_that_it_states_also_where_the_record_of_the_run_is_gone(
    place: str, stage: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.finished.WRITERS", {})
    (source / "run.json").unlink()
    assert open_complete(f"{source}/{place}").shape == SHAPE
    ledger = source / "ledgers" / f"{stage}.ledger"
    _forget(source, stage, 0)
    with pytest.raises(BadInput, match=f"1 of .* blocks of stage {stage} are missing"):
        open_complete(f"{source}/{place}")
    ledger.unlink()
    with pytest.raises(BadInput, match=f"blocks of stage {stage} are missing"):
        open_complete(f"{source}/{place}")


def test_an_array_under_another_name_and_a_layer_of_another_run_are_somebodys_own(source: Path, whole: Path) -> None:
    for stage in ("relabel", "predict", "export-segmentation-mip0"):
        (source / "ledgers" / f"{stage}.ledger").unlink()
    shutil.copytree(source / "arrays" / "segmentation", source / "arrays" / "mine")
    shutil.copytree(source / "precomputed" / "segmentation", source / "precomputed" / "mine")
    (source / "arrays" / "linked").symlink_to(whole / "arrays" / "segmentation")
    for place in ("arrays/mine", "precomputed/mine", "arrays/linked"):
        assert open_complete(f"{source}/{place}").shape == SHAPE
    facts = json.loads((source / "run.json").read_bytes())
    facts["settings"]["export"]["layers"] = ["raw"]
    (source / "run.json").write_text(json.dumps(facts))
    assert open_complete(f"{source}/precomputed/segmentation").shape == SHAPE


def test_a_link_under_another_name_into_an_unfinished_run_is_unfinished(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "other")
    (source / "arrays" / "linked").symlink_to(tmp_path / "other" / "arrays" / "segmentation")
    _forget(tmp_path / "other", "relabel", 1)
    with pytest.raises(BadInput, match=f"1 of 5 blocks of stage relabel are missing in {tmp_path}/other"):
        open_complete(f"{source}/arrays/linked")


def test_an_array_of_other_blocks_in_the_place_of_a_runs_own_is_held_to_the_ledger_of_the_run(source: Path) -> None:
    path = source / "arrays/segmentation/0/zarr.json"
    content = json.loads(path.read_bytes())
    content["attributes"]["teramito"]["block_zyx"] = [12, 32, 40]
    path.write_text(json.dumps(content))
    assert open_complete(f"{source}/arrays/segmentation").shape == SHAPE
    _forget(source, "relabel", 3)
    with pytest.raises(BadInput, match="1 of 5 blocks of stage relabel are missing"):
        open_complete(f"{source}/arrays/segmentation")


def test_the_remedy_for_an_array_is_told_by_its_path_alone(source: Path) -> None:
    array = f"{source}/arrays/boundary"
    said = f"\n{array} is damaged: to make it again, delete {source}/ledgers/predict.ledger (or in it the lines of"
    assert remedy_of([array, array]).startswith(said) and remedy_of([array, array]).count("\n") == 1
    _unstated(source, "arrays/boundary")
    assert remedy_of([array]).startswith(said)
    others = [f"{source}/tables/label/00000/1.arrays", f"{source}/arrays/theirs", "s3://bucket/arrays/boundary", "/v"]
    assert remedy_of(others) == remedy_of([]) == ""


def test_a_ledger_of_another_grid_says_nothing_of_this_one(source: Path) -> None:
    ledger = source / "ledgers" / "relabel.ledger"
    ledger.write_text(ledger.read_text().replace('"blocks": 5', '"blocks": 9'))
    with pytest.raises(BadInput, match="5 of 5 blocks of stage relabel are missing"):
        open_complete(f"{source}/arrays/segmentation")


def test_an_unfinished_tissue_mask_is_refused(source: Path, raw: str, tiny_model: Path, teramito: Teramito) -> None:
    mask = f"{source}/arrays/segmentation"
    given = ["plan", "--input", raw, "--model", str(tiny_model), "--set", f"instances.tissue_mask={mask}"]
    given += ["--set", "predict.patch=[4,16,16]"]
    assert teramito(*given).code == 0
    _forget(source, "relabel", 2)
    teramito(*given).refuses(f"{mask}: 1 of 5 blocks of stage relabel are missing")


def _chunks(run: Path, array: str) -> list[Path]:
    return sorted(path for path in (run / "arrays" / array / "0" / "c").rglob("*") if path.is_file())


def test_a_torn_chunk_of_a_map_fails_its_block_and_the_mended_map_is_completed(
    source: Path, tmp_path: Path, teramito: Teramito
) -> None:
    given = ["instances", f"{source}/arrays/semantic", f"{source}/arrays/boundary", str(tmp_path / "out")]
    given += ["--set", "block.shape=[12,32,16]", "--set", "instances.minimum_voxels=8"]
    chunk = _chunks(source, "boundary")[3]
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    said = teramito(*given)
    said.refuses("stage label: 1 of 5 blocks failed; the others are kept", "block 3 [0:12,0:32,48:64]")
    said.refuses(f"{source}/arrays/boundary [0:12,0:32,48:64]: the stored voxels must be readable")
    said.refuses(f"{source}/arrays/boundary is damaged", f"delete {source}/ledgers/predict.ledger")
    lines = ledger_lines(tmp_path / "out", "label")
    assert sorted(line.split()[0] for line in lines if " ! " not in line) == ["0", "1", "2", "4"]
    chunk.write_bytes(content)
    assert teramito(*given).code == 0
    after = ledger_lines(tmp_path / "out", "label")
    assert after[: len(lines)] == lines
    assert [line.split()[0] for line in after[len(lines) :]] == ["3"]


def test_a_torn_chunk_of_an_intermediate_array_is_named_with_the_stage_that_makes_it_again(
    source: Path, raw: str, tiny_model: Path, teramito: Teramito
) -> None:
    undisturbed = result_of(source)
    exports = list((source / "ledgers").glob("export-segmentation-*"))
    for path in (source / "report.json", *exports):  # a run that was killed before it exported
        path.unlink()
    chunk = _chunks(source, "segmentation")[0]
    chunk.write_bytes(chunk.read_bytes()[:-9])
    given = arguments(raw, source, tiny_model, BLOCKS)
    said = teramito("run", *given)
    said.refuses("stage export-segmentation-mip0:", "the others are kept", f"{source}/arrays/segmentation [")
    said.refuses(f"{source}/arrays/segmentation is damaged: to make it again, delete {source}/ledgers/relabel.ledger")
    before = ledger_lines(source, "relabel")
    _forget(source, "relabel", int(before[0].split()[0]))  # "or in it the lines of the damaged blocks"
    assert teramito("run", *given).code == 0
    again = ledger_lines(source, "relabel")
    assert again[:-1] == before[1:] and again[-1].split()[0] == before[0].split()[0]
    result_of(source).require_same(undisturbed)


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ("label", "predict label"),
        ("label", "predict label stitch"),
        ("stitch-pairs", "predict label stitch"),
        ("grow", "predict label stitch grow"),
    ],
)
def test_a_torn_table_of_a_block_is_named_and_made_again_as_the_message_says(
    table: str, kept: str, source: Path, raw: str, tiny_model: Path, teramito: Teramito
) -> None:
    undisturbed = result_of(source)
    _killed_after(source, kept.split())
    torn = min((source / "tables" / table).rglob("*.arrays"))
    torn.write_bytes(torn.read_bytes()[:7])
    given = arguments(raw, source, tiny_model, BLOCKS)
    said = teramito("run", *given)
    ledger = source / "ledgers" / f"{table.split('-')[0]}.ledger"
    said.refuses(str(torn), "a table of a block must be there whole", f"delete {ledger} (or in it the lines of block")
    if kept == "predict label":  # found by a block: the others go on
        said.refuses("stage stitch:", "the others are kept")
    ledger.unlink()
    assert teramito("run", *given).code == 0
    result_of(source).require_same(undisturbed)


def _killed_after(run: Path, stages: list[str]) -> None:
    """What a run had when it was killed as the last of these stages was done."""
    ledgers = (path for path in (run / "ledgers").iterdir() if path.stem not in stages)
    for path in (run / "report.json", *ledgers, *run.glob("tables/*.npy")):
        path.unlink()
    table = run / "instances.parquet"
    shutil.rmtree(table) if table.is_dir() else table.unlink()


def test_a_torn_table_of_the_run_is_named_and_made_again(
    source: Path, raw: str, tiny_model: Path, teramito: Teramito
) -> None:
    undisturbed = result_of(source)
    tables = sorted(source.glob("tables/offsets-*.npy"))
    contents = [table.read_bytes()[:40] for table in tables]
    _killed_after(source, ["predict", "label", "stitch", "grow"])
    for table, content in zip(tables, contents, strict=True):
        table.write_bytes(content)
    given = arguments(raw, source, tiny_model, BLOCKS)
    mended = 0
    while (said := teramito("run", *given)).code:
        said.refuses("a table of a run must be there whole", "Delete it and run the same command")
        (named,) = (table for table in tables if str(table) in said.err)
        named.unlink()
        mended += 1
    assert mended
    result_of(source).require_same(undisturbed)
