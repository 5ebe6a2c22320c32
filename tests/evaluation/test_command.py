"""`teramito evaluate` as a person meets it: what it prints, writes, resumes and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from flows.cli import app
from flows.terminal.pace import Watcher
from pipeline import __version__
from pipeline.engine.directory import open_ledger
from pipeline.engine.executor import PicklingExecutor, SerialExecutor, ThreadsExecutor
from pipeline.errors import BadInput, RunCancelled, RunConflict, StageFailed
from pipeline.evaluation import Contingency
from pipeline.evaluation.blockwise import compared_blocks, contingency, evaluate
from pipeline.evaluation.comparison import comparison
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.scores import PRESETS, Scoring, instance_scores
from pipeline.geometry import Box, Vec3
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume

KEYS = [
    *("iou", "dice", "ap50_95", "ap50", "ap75", "ap75_small", "ap75_medium", "ap75_large"),
    *("voi_split", "voi_merge", "adapted_rand", "instances_predicted", "instances_truth"),
]
SHAPE: Vec3 = (12, 20, 24)
BLOCKS = "block.shape=[4,10,12]"  # 3 x 2 x 2


def stored(folder: Path, name: str, array: NDArray[Any]) -> Volume:
    ome_zarr.create(str(folder / name), array.shape, array.shape, (4, 10, 12), str(array.dtype), (40.0, 10.0, 10.0))
    volume = open_volume(str(folder / name))
    volume.write(volume.box, array)
    return volume


def labels(seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 6, (3, 4, 4)), np.ones((4, 5, 6), int)).astype(np.uint64) * np.uint64(2**59 + 1)
    prediction = np.where(rng.random(SHAPE) < 0.95, np.roll(truth, 1, 2), np.uint64(3))
    return prediction, truth


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Addresses of a prediction and a truth."""
    for name, array in zip(("p", "t"), labels(1), strict=True):
        stored(tmp_path, name, array)
    return str(tmp_path / "p"), str(tmp_path / "t")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sheets in this test: drawing one takes a second."""
    monkeypatch.setattr("flows.commands.evaluate.sheet_of", lambda *_: b"")


def invoked(*words: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def scores(*words: object) -> dict[str, float]:
    done = invoked(*words, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def refusal(*words: object) -> str:
    done = invoked(*words)
    assert isinstance(done.exception, BadInput), repr(done.exception)
    return str(done.exception)


def test_the_keys_are_those_that_were_promised_and_are_the_numbers_of_the_whole(pair: tuple[str, str]) -> None:
    found = scores(*pair, "--set", BLOCKS)
    assert list(found) == KEYS
    assert found == instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])
    assert 0 < found["iou"] < 1 and found["voi_split"] > 0


def test_presets_and_options_change_what_is_counted(pair: tuple[str, str]) -> None:
    table = Contingency.of(*labels(1))
    assert scores(*pair, "--preset", "challenge2021") == instance_scores(table, Scoring((5e3, 3e4), 2000))
    given = scores(*pair, "--size-limits", "4e2,1e3", "--ignore-below", 200)
    assert given == instance_scores(table, Scoring((400, 1000), 200))
    both = scores(*pair, "--preset", "challenge2021", "--ignore-below", 0)
    assert both == instance_scores(table, Scoring((5e3, 3e4), 0))


@pytest.mark.parametrize("filled", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_empty_and_full_volumes_have_defined_scores_files_and_pictures(tmp_path: Path, filled: tuple[int, int]) -> None:
    for name, value in zip(("p", "t"), filled, strict=True):
        stored(tmp_path, name, np.full((4, 10, 12), value, np.uint16))
    found = scores(tmp_path / "p", tmp_path / "t", "--output", tmp_path / "out")
    agree = float(filled[0] == filled[1])
    assert found["iou"] == found["dice"] == agree
    assert [found[key] for key in ("ap50_95", "ap50", "ap75")] == pytest.approx([agree] * 3)
    assert found["ap75_large"] == -1
    assert found["adapted_rand"] == float(filled == (7, 0))
    assert all(np.isfinite(value) for value in found.values())
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000


def test_a_directory_gets_scores_matches_and_a_sheet(pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = scores(*pair, "--output", out, "--matches", tmp_path / "m.csv", "--raw", pair[0], "--set", BLOCKS)
    written = json.loads((out / "scores.json").read_text())
    assert {key: written[key] for key in KEYS} == found
    assert (written["preset"], written["size_limits"], written["ignore_below"]) == ("mitoem", [5000, 15000], 0)
    assert (written["prediction"], written["truth"], written["teramito"]) == (*pair, __version__)
    assert pyarrow.parquet.read_table(out / "matches.parquet").num_rows >= found["instances_predicted"]
    assert (tmp_path / "m.csv").read_text().startswith('"kind","prediction","prediction_voxels","all_truth"')
    assert (out / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
def test_another_preset_in_the_same_directory_reads_no_voxel_again(pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    scores(*pair, "--output", out, "--set", BLOCKS)
    before = (out / "ledgers" / "overlap.ledger").read_bytes()
    again = scores(*pair, "--output", out, "--set", BLOCKS, "--preset", "challenge2021")
    assert (out / "ledgers" / "overlap.ledger").read_bytes() == before
    assert again["instances_truth"] == 0
    assert json.loads((out / "scores.json").read_text())["ignore_below"] == 2000


@pytest.mark.usefixtures("undrawn")
def test_a_changed_input_or_another_directory_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    scores(*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    other = stored(tmp_path, "other", labels(2)[0])
    done = invoked(other, pair[1], "--output", tmp_path / "out", "--set", BLOCKS)
    assert isinstance(done.exception, RunConflict)
    assert "changed: prediction.address" in str(done.exception)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    done = invoked(*pair, "--output", tmp_path / "mine")
    assert isinstance(done.exception, RunConflict) and "letter.txt" in str(done.exception)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def edited_in_place(address: str) -> None:
    """A voxel of the last chunk changed, as a proofreader does it: the metadata are not touched."""
    volume = open_volume(address)
    box = Box((8, 10, 12), (12, 20, 24))
    array = volume.read(box)
    array[-1, -1, -1] += 1
    volume.write(box, array)


@pytest.mark.usefixtures("undrawn")
def test_a_truth_that_was_edited_in_place_is_refused_by_name_and_compared_anew_when_asked(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    before = scores(*words)
    written = (tmp_path / "out" / "scores.json").read_bytes()
    edited_in_place(pair[1])
    done = invoked(*words)
    assert isinstance(done.exception, RunConflict)
    said = str(done.exception)
    assert f"changed since: truth {pair[1]} (" in said and f"prediction {pair[0]}" not in said and "--again" in said
    assert (tmp_path / "out" / "scores.json").read_bytes() == written
    anew = scores(*words, "--again")
    assert anew == instance_scores(
        Contingency.of(labels(1)[0], open_volume(pair[1]).read(Box.of_shape(SHAPE))), PRESETS["mitoem"]
    )
    assert anew != before and scores(*words) == anew


@pytest.mark.usefixtures("undrawn")
def test_metadata_written_anew_as_they_were_are_no_change(pair: tuple[str, str], tmp_path: Path) -> None:
    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    before = scores(*words)
    for file in Path(pair[1]).rglob("zarr.json"):
        os.utime(file, (1, 1))
    assert scores(*words) == before


@pytest.mark.usefixtures("undrawn")
def test_again_empties_no_directory_that_is_not_a_comparison(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "run" / "tables").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text('{"settings": {"input": "volume.zarr"}}')
    done = invoked(*pair, "--output", tmp_path / "run", "--again")
    assert isinstance(done.exception, RunConflict)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", "tables"]


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_comparison_says_how_many_blocks_it_takes(pair: tuple[str, str], tmp_path: Path) -> None:
    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    assert "are taken from" not in invoked(*words).output
    assert f"12 of 12 blocks are taken from {tmp_path / 'out'}" in invoked(*words).output


def test_the_sheet_is_drawn_again_only_when_it_would_show_something_else(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    scores(*words)
    sheet = tmp_path / "out" / "sheet.png"
    first = sheet.read_bytes()
    with monkeypatch.context() as unreadable:
        unreadable.setattr(
            "pipeline.evaluation.illustration.located_examples", lambda *_: pytest.fail("voxels were read")
        )
        scores(*words, "--size-limits", "100,200", "--sheet", tmp_path / "copy.png")
    assert sheet.read_bytes() == first == (tmp_path / "copy.png").read_bytes()
    scores(*words, "--preset", "challenge2021")
    assert sheet.read_bytes() != first


def test_scores_of_classes_leave_no_files_of_instances_beside_them(pair: tuple[str, str], tmp_path: Path) -> None:
    for name in "pt":
        stored(tmp_path, f"{name}8", np.arange(12 * 20 * 24).reshape(SHAPE).astype(np.uint8) % 3)
    words = (tmp_path / "p8", tmp_path / "t8", "--output", tmp_path / "out")
    scores(*words)
    scores(*words, "--classes")
    assert {"matches.parquet", "sheet.png"}.isdisjoint(path.name for path in (tmp_path / "out").iterdir())
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["classes"] and "size_limits" not in written


def test_a_crop_is_part_of_the_address_that_is_kept(pair: tuple[str, str], tmp_path: Path) -> None:
    cropped = [f"{address}[2:10,:,4:]" for address in pair]
    scores(*cropped, "--output", tmp_path / "out", "--set", BLOCKS)
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["truth"] == f"{pair[1]}[2:10,0:20,4:24]"


@pytest.mark.parametrize("layer", ["precomputed/segmentation", "arrays/segmentation"])
def test_the_directory_of_a_run_stands_for_its_segmentation(tmp_path: Path, layer: str) -> None:
    run = tmp_path / "run"
    (run / "arrays").mkdir(parents=True)
    (run / "run.json").write_text('{"settings": {}}')
    (run / layer).parent.mkdir(exist_ok=True)
    for place, array in ((run / layer, labels(1)[0]), (tmp_path / "t", labels(1)[1])):
        stored(place.parent, place.name, array)
    expected = instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])
    assert scores(run, tmp_path / "t", "--set", BLOCKS) == expected
    assert scores(f"{run}[0:4,:,:]", f"{tmp_path / 't'}[0:4,:,:]")["instances_truth"] <= expected["instances_truth"]


def test_targets_that_cannot_be_written_are_refused_before_any_work(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.commands.evaluate.compared_blocks", lambda *_: pytest.fail("it was compared"))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for words, expected in (
        (("--matches", "/proc/x/m.csv"), "be writable"),
        (("--matches", tmp_path / "file" / "m.csv"), "be writable"),
        (("--sheet", tmp_path / "folder.png"), "a folder is there"),
    ):
        assert expected in refusal(*pair, *words)


def test_a_disk_that_fills_at_the_end_is_not_said_to_have_kept_anything(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.commands.evaluate.write_matches", full)
    message = refusal(*pair, "--set", BLOCKS, "--matches", tmp_path / "m.csv")
    assert "No space left" in message and "Give --output too" in message


def test_class_maps_get_an_iou_a_class(tmp_path: Path) -> None:
    stored(tmp_path, "p", np.repeat([0, 1, 1, 2], 30).reshape(4, 5, 6).astype(np.uint8))
    stored(tmp_path, "t", np.repeat([0, 0, 1, 2], 30).reshape(4, 5, 6).astype(np.uint8))
    found = scores(tmp_path / "p", tmp_path / "t", "--classes", "--output", tmp_path / "out")
    assert found == {"miou": pytest.approx(2 / 3), "iou_class_0": 0.5, "iou_class_1": 0.5, "iou_class_2": 1.0}
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["miou"] == found["miou"]


KILLED = """
import os, signal, sys
from pipeline.evaluation.blockwise import compared_blocks
from pipeline.evaluation.comparison import comparison
from pipeline.evaluation.config import EvaluateConfig
from pipeline.engine.executor import ThreadsExecutor

def watch(step, stage):
    def progress(ledger):
        if ledger.done_count == 5:
            os.kill(os.getpid(), signal.SIGKILL)
    return progress

p, t, out = sys.argv[1:]
made = comparison(EvaluateConfig(prediction=p, truth=t, output=out, block={"shape": (4, 10, 12)}))
with made.opened() as directory:
    compared_blocks(made, directory, ThreadsExecutor(2), watch)
"""


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_killed_in_the_middle_goes_on_there(pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, *pair, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    ledger = out / "ledgers" / "overlap.ledger"
    done = ledger.read_text().splitlines()[1:]
    assert len(done) == 5
    found = scores(*pair, "--output", out, "--set", BLOCKS)
    lines = ledger.read_text().splitlines()[1:]
    assert lines[:5] == done
    assert sorted(int(line.split()[0]) for line in lines) == list(range(12))  # each block once
    assert found == instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])


def test_a_cancelled_comparison_keeps_its_blocks(pair: tuple[str, str], tmp_path: Path) -> None:
    config = config_of(pair, tmp_path / "out")

    def cancel(_step: str, _stage: Any) -> Any:
        def progress(ledger: Any) -> None:
            if ledger.done_count == 3:
                raise RunCancelled("enough")

        return progress

    made = comparison(config)
    with made.opened() as directory, pytest.raises(RunCancelled):
        compared_blocks(made, directory, SerialExecutor(), cancel)
    with made.opened() as directory, open_ledger(directory, made.stage(directory)) as ledger:
        assert ledger.done_count == 3


@pytest.mark.usefixtures("undrawn")
def test_sigterm_stops_the_command_between_blocks(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminated(Watcher):
        def __call__(self, step: str, stage: Any) -> Any:
            return lambda ledger: os.kill(os.getpid(), signal.SIGTERM) if ledger.done_count == 4 else None

    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    with monkeypatch.context() as patched:
        patched.setattr("flows.commands.evaluate.terminal_watcher", lambda: Terminated(print, 1.0))
        done = invoked(*words)
    assert isinstance(done.exception, RunCancelled) and "the same command goes on" in str(done.exception)
    assert not (tmp_path / "out" / "scores.json").exists()
    assert scores(*words) == instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])


def test_verify_says_that_the_directory_of_a_comparison_is_no_run(pair: tuple[str, str], tmp_path: Path) -> None:
    made = comparison(config_of(pair, tmp_path / "out"))
    with made.opened():
        pass
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "out")])
    assert isinstance(done.exception, BadInput) and "a comparison, not of a run" in str(done.exception)


def config_of(pair: tuple[str, str], out: Path) -> EvaluateConfig:
    return EvaluateConfig.model_validate(
        {"prediction": pair[0], "truth": pair[1], "output": str(out), "block": {"shape": (4, 10, 12)}}
    )


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.tuples(st.integers(2, 12), st.integers(7, 20), st.integers(9, 30)), seed=st.integers(0, 1))
def test_blocks_of_any_shape_on_any_executor_give_the_table_of_the_whole(
    tmp_path: Path, block: Vec3, seed: int
) -> None:
    arrays = labels(seed)
    name = f"{seed}"
    if not (tmp_path / f"p{name}").exists():
        stored(tmp_path, f"p{name}", arrays[0]), stored(tmp_path, f"t{name}", arrays[1])
    volumes = [open_volume(str(tmp_path / f"{side}{name}")) for side in "pt"]
    whole = Contingency.of(*arrays)
    for executor in (PicklingExecutor(), ThreadsExecutor(3)):
        table = contingency(volumes[0], volumes[1], block, executor)
        for column in ("prediction", "truth", "voxels"):
            np.testing.assert_array_equal(getattr(table, column), getattr(whole, column))


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_runs_on_worker_processes_too(pair: tuple[str, str], tmp_path: Path) -> None:
    found = scores(*pair, "--output", tmp_path / "out", "--set", BLOCKS, "--set", "cluster.kind=local", "--set",
                   "cluster.workers=1")  # fmt: skip
    assert found == instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])


def test_blocks_that_are_background_in_both_take_no_file(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, :3] = 1
    volume = stored(tmp_path, "p", array)
    made = comparison(config_of((str(volume), str(volume)), tmp_path / "out"))
    with made.opened() as directory:
        table = compared_blocks(made, directory, SerialExecutor())
    assert [path.name for path in (tmp_path / "out" / "tables").rglob("*.arrays")] == ["0.arrays"]
    assert (table.prediction.tolist(), table.voxels.tolist()) == ([0, 1], [array.size - 3, 3])


@pytest.mark.usefixtures("undrawn")
def test_an_unreadable_block_is_named_and_the_others_are_kept(pair: tuple[str, str], tmp_path: Path) -> None:
    torn = Path(pair[0]) / "0" / "c" / "1" / "1" / "0"
    whole, written = torn.read_bytes(), torn.stat().st_mtime_ns
    torn.write_bytes(b"\xff" * len(whole))  # as a failing disk gives it: the file looks the same
    os.utime(torn, ns=(written, written))
    words = (*pair, "--output", tmp_path / "out", "--set", BLOCKS)
    done = invoked(*words)
    assert isinstance(done.exception, StageFailed)
    assert "stage overlap: 1 of 12 blocks failed" in str(done.exception) and "[4:8,10:20,0:12]" in str(done.exception)
    assert not (tmp_path / "out" / "scores.json").exists()
    torn.write_bytes(whole)
    os.utime(torn, ns=(written, written))
    assert "11 of 12 blocks are taken from" in invoked(*words).output
    assert scores(*words) == instance_scores(Contingency.of(*labels(1)), PRESETS["mitoem"])


def test_ids_that_are_one_float_apart_stay_two_instances(tmp_path: Path) -> None:
    array = np.zeros((4, 10, 12), np.uint64)
    array[:2], array[2:] = 2**53 + 1, 2**53
    wide = stored(tmp_path, "w", array)
    found = evaluate(wide, wide)
    assert found["instances_truth"] == 2 and found["voi_split"] == found["voi_merge"] == 0.0


def test_negative_labels_are_refused_in_one_message_with_the_least_of_them(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.int16)
    array[0, 0, 0], array[-1, -1, -1] = -3, -200
    stored(tmp_path, "p", array), stored(tmp_path, "t", np.ones(SHAPE, np.uint8))
    message = refusal(tmp_path / "p", tmp_path / "t", "--set", BLOCKS)
    assert "labels must be whole numbers" in message and "the value -200" in message


def test_shapes_and_float_maps_are_refused_together_in_one_go(tmp_path: Path) -> None:
    stored(tmp_path, "p", np.zeros((4, 10, 12), np.float32)), stored(tmp_path, "t", np.zeros(SHAPE, np.uint8))
    message = refusal(tmp_path / "p", tmp_path / "t", "--output", tmp_path / "out")
    assert "it holds float32" in message and "both must have one shape" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--size-limits", "15000,5000"), "small instances must end below medium ones"),
        (("--size-limits", "5000,5000"), "small instances must end below medium ones"),
        (("--size-limits", "5000"), "two numbers of voxels A,B"),
        (("--size-limits", "0,5000"), "greater than 0"),
        (("--size-limits", "5,nan"), "finite"),
        (("--ignore-below", "-1"), "greater than or equal to 0"),
        (("--preset", "mitoEM"), "mitoem"),
        (("--matches", "m.xlsx"), ".parquet or .csv"),
        (("--sheet", "s.pdf"), ".png"),
        (("--classes", "--sheet", "s.png"), "neither --matches nor --sheet"),
        (("--classes", "--ignore-below", "5"), "belong to instances"),
        (("--set", "blok.shape=[1,1,1]"), "block"),
        (("--set", "cluster.kind=address", "--set", "cluster.address=tcp://1.2.3.4:5"), "output directory"),
        (("--output", "s3://bucket/out"), "local or network-mounted"),
        (("--again",), "goes with --output"),
    ],
)
def test_wrong_options_are_refused_in_one_message(pair: tuple[str, str], words: tuple[str, ...], expected: str) -> None:
    message = refusal(*pair, *words)
    assert expected in message
    assert len(message.splitlines()) == 1 and len(message) < 300


def test_an_image_of_another_shape_is_refused_before_any_work(pair: tuple[str, str], tmp_path: Path) -> None:
    raw = stored(tmp_path, "raw", np.zeros((4, 10, 12), np.uint8))
    message = refusal(*pair, "--output", tmp_path / "out", "--raw", raw, "--sheet", tmp_path / "s.png")
    assert "the image must have the shape of the labels" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_the_truth_of_lucchi_scores_one_against_itself() -> None:
    folder = os.environ.get("TERAMITO_DATA")
    if not folder:
        pytest.skip("TERAMITO_DATA names no folder of real volumes")
    truth = f"{folder}/lucchi/train_instances.tif[0:40,0:256,0:256]"
    found = scores(truth, truth)
    assert found["iou"] == found["ap75"] == pytest.approx(1.0)
    assert found["instances_predicted"] == found["instances_truth"] > 0
