from __future__ import annotations

import json
import logging
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline.training.record import curves, tensorboard
from pipeline.training.record.curves import draw_all, draw_curves
from pipeline.training.record.examples import (
    FALSE,
    ValidationExample,
    colours_of_predictions,
    colours_of_truth,
    inner_rim,
    read_examples,
    sheet,
    write_examples,
)
from pipeline.training.record.history import LOG, History, moving_mean, read_history, without_undone_steps
from pipeline.training.record.log import TrainingLog
from pipeline.training.record.tensorboard import FOLDER, scalars

Entry = dict[str, Any]


def step(number: int, loss: float = 1.0) -> Entry:
    parts = {"loss": loss, "semantic": 0.6 * loss, "boundary": 0.4 * loss}
    return {"step": number, **parts, "rate": 0.002, "seconds": 0.5, "waited": 0.05, "voxels": 1000}


def scores(number: int, volume: str = "lucchi/train_raw", iou: float = 0.8, best: bool = False) -> Entry:
    return {"step": number, "validation": volume, "iou": iou, "dice": 0.9, "ap50": 0.7, "ap75": 0.6, "best": best}


def a_log() -> list[Entry]:
    entries: list[Entry] = []
    for number in range(1, 31):
        entries.append(step(number, 1.0 / number))
        if number % 10 == 0:
            entries += [scores(number, iou=number / 40, best=number == 20), scores(number, "phantom", 0.5)]
    return entries


def write(output: Path, entries: list[Entry], torn: str = "") -> None:
    output.mkdir(exist_ok=True)
    (output / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in entries) + torn)


def an_example(
    name: str = "phantom, z 0-1", size: tuple[float, float, float] | None = (30.0, 8.0, 8.0)
) -> ValidationExample:
    truth = np.zeros((2, 20, 30), np.int32)
    truth[1, 2:8, 2:8], truth[1, 10:18, 10:28] = 7, 9
    raw = np.random.default_rng(0).integers(0, 255, truth.shape).astype(np.uint8)
    mask = np.where(truth > 0, 230, 10).astype(np.uint8)
    return ValidationExample(name, raw, truth, mask, mask // 2, np.where(truth == 9, 1, 0), size)


def opened(output: Path) -> Any:
    """What TensorBoard reads with."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(output / FOLDER), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def events(output: Path) -> tuple[dict[str, list[tuple[int, float]]], list[int]]:
    """(step, value) of each tag, and the steps of the pictures."""
    found = opened(output)
    tags = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    return tags, [event.step for tag in found.Tags()["images"] for event in found.Images(tag)]


def logged(entries: list[Entry]) -> dict[str, list[tuple[int, float]]]:
    tags: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        for tag, value in scalars(entry).items():
            tags.setdefault(tag, []).append((entry["step"], pytest.approx(value, rel=1e-6)))
    return tags


def panels(figure: Figure) -> dict[str, Any]:
    return {axes.get_title().partition(":")[0].partition(" (")[0]: axes for axes in figure.axes}


def labelled(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}


def test_every_step_and_every_validation_is_a_point_of_the_curves() -> None:
    figure = curves.curves(History(tuple(a_log())), "run")
    shown = panels(figure)
    assert [len(line.get_xdata()) for line in shown["Loss"].lines] == [30] * 6  # total and two parts, raw and smoothed
    raw_total = shown["Loss"].lines[0]
    np.testing.assert_allclose(raw_total.get_ydata(), [1.0 / number for number in range(1, 31)])
    assert set(labelled(shown["Loss"])) == {"total", "mask", "boundary"}
    assert len(shown["Learning rate"].lines[0].get_xdata()) == 30
    for panel, last in (("Foreground IoU", "0.750"), ("Instances", "0.600")):
        drawn = labelled(shown[panel])
        assert f"lucchi/train_raw  {last}" in drawn
        assert [list(line.get_xdata()) for line in drawn.values()] == [[10, 20, 30]] * 2
    np.testing.assert_allclose(shown["Time waited for data"].lines[0].get_ydata(), [10.0] * 30)
    assert "10.0% of all" in shown["Time waited for data"].get_title()


def test_the_best_step_is_marked_in_both_score_panels() -> None:
    shown = panels(curves.curves(History(tuple(a_log())), "run"))
    for panel in ("Foreground IoU", "Instances"):
        stars = [line for line in shown[panel].lines if line.get_marker() == "*"]
        assert [list(star.get_xdata()) for star in stars] == [[20], [20]]


def test_a_log_without_scores_or_with_the_loss_alone_is_drawn_too(tmp_path: Path) -> None:
    write(tmp_path, [{"step": 1, "loss": math.nan, "seconds": 0.1}, {"step": 2, "loss": 2.0, "seconds": 0.0}])
    assert [path.name for path in draw_all(tmp_path)] == ["curves.png", FOLDER]
    write(tmp_path / "empty", [])
    draw_all(tmp_path / "empty")
    assert events(tmp_path / "empty") == ({}, [])


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_scores_of_which_none_was_called_best_are_drawn_without_a_mark(tmp_path: Path) -> None:
    write(tmp_path, [step(1), scores(1), step(2), scores(2, "phantom")])
    draw_all(tmp_path)
    shown = panels(curves.curves(read_history(tmp_path), "run"))
    assert [line.get_marker() for line in shown["Foreground IoU"].lines] == ["o", "o"]


def test_a_line_of_very_many_values_keeps_its_extremes() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    values[[7, 12_345]] = 50.0, -50.0
    at = curves.extremes(values, 1000)
    assert len(at) <= 1000
    assert {7, 12_345} <= set(at.tolist())
    assert (np.diff(at) > 0).all()
    assert curves.extremes(values[:900], 1000).tolist() == list(range(900))


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_the_pictures_are_readable_pngs(tmp_path: Path) -> None:
    write(tmp_path, a_log())
    write_examples(tmp_path, 30, [an_example(), an_example("other", None)])
    draw_curves(tmp_path)
    for name in (curves.CURVES, curves.EXAMPLES):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 400
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, a_log(), torn='{"step": 31, "loss": 0.')
    assert read_history(tmp_path).last_step == 30
    assert len(read_history(tmp_path).entries) == len(a_log())


def test_steps_that_a_resumed_training_took_again_count_once() -> None:
    first = [step(1), step(2), scores(2, iou=0.1), step(3), step(4), scores(4, iou=0.2)]
    again = [step(3, 9.0), step(4, 9.0), scores(4, iou=0.3), scores(4, iou=0.4)]
    assert without_undone_steps(first + again) == [*first[:3], step(3, 9.0), step(4, 9.0), scores(4, iou=0.4)]


def test_the_running_mean_is_centred_and_passes_over_what_is_no_number() -> None:
    values = np.array([1.0, math.nan, 3.0, 5.0, 7.0])
    np.testing.assert_allclose(moving_mean(values, 3), [1.0, 2.0, 4.0, 5.0, 6.0])
    np.testing.assert_array_equal(moving_mean(np.array([math.nan]), 1), [math.nan])


def test_tensorboard_reads_back_exactly_the_log(tmp_path: Path) -> None:
    write(tmp_path, a_log())
    write_examples(tmp_path, 30, [an_example()])
    draw_all(tmp_path)
    tags, pictures = events(tmp_path)
    assert tags == logged(a_log())
    assert {"train/loss", "train/rate", "iou/lucchi/train_raw", "ap75/phantom"} <= set(tags)
    assert pictures == [30]


def test_drawing_after_every_few_lines_gives_each_step_once(tmp_path: Path) -> None:
    for until in (7, 7, 20, 36):
        write(tmp_path, a_log()[:until])
        write_examples(tmp_path, until, [an_example()])
        draw_all(tmp_path)
    assert events(tmp_path) == (logged(a_log()), [7, 20, 36])


def test_an_open_tensorboard_follows_and_forgets_undone_steps(tmp_path: Path) -> None:
    write(tmp_path, a_log()[:30])
    draw_all(tmp_path)
    following = opened(tmp_path)
    write(tmp_path, a_log())
    draw_all(tmp_path)
    following.Reload()
    assert [event.step for event in following.Scalars("train/loss")] == list(range(1, 31))
    undone = [*a_log()[:25], *(step(number, 5.0) for number in range(15, 25))]
    write(tmp_path, undone)
    draw_all(tmp_path)
    following.Reload()
    for losses in (events(tmp_path)[0]["train/loss"], [(e.step, e.value) for e in following.Scalars("train/loss")]):
        assert [number for number, _ in losses] == list(range(1, 25))
        assert [value for _, value in losses[14:]] == [5.0] * 10


def test_events_torn_by_a_kill_are_mended_by_the_next_drawing(tmp_path: Path) -> None:
    write(tmp_path, a_log()[:20])
    draw_all(tmp_path)
    (path,) = (tmp_path / FOLDER).glob("events.*")
    with path.open("ab") as file:
        file.write(b"half an event")  # what a kill leaves between the events and their record
    write(tmp_path, a_log())
    draw_all(tmp_path)
    assert events(tmp_path)[0] == logged(a_log())


@pytest.mark.usefixtures("drawn")
def test_a_training_writes_one_file_of_events_and_goes_on_after_another_drew(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as told:
        for entry in a_log()[:24]:
            told.add(entry)
            if "validation" in entry:
                told.draw()
        assert len(list((tmp_path / FOLDER).glob("events.*"))) == 1
        told.add(a_log()[24])
        draw_all(tmp_path)  # `teramito curves`, while the training goes on
        for entry in a_log()[25:]:
            told.add(entry)
        told.draw()
    assert events(tmp_path)[0] == logged(a_log())
    assert len(list((tmp_path / FOLDER).glob("events.*"))) == 3


def test_events_of_which_a_killed_training_kept_no_record_count_once(tmp_path: Path) -> None:
    write(tmp_path, a_log()[:12])
    draw_all(tmp_path)
    state = tmp_path / FOLDER / tensorboard._STATE
    before = state.read_bytes()
    write(tmp_path, a_log()[:24])
    draw_all(tmp_path)
    state.write_bytes(before)
    resumed = [*a_log()[:18], *(step(number, 5.0) for number in range(17, 25))]
    write(tmp_path, resumed)
    draw_all(tmp_path)
    assert events(tmp_path)[0] == logged(without_undone_steps(resumed))


def test_events_of_an_earlier_version_are_forgotten(tmp_path: Path) -> None:
    write(tmp_path, a_log())
    draw_all(tmp_path)
    (path,) = (tmp_path / FOLDER).glob("events.*")
    path.rename(path.with_name("events.out.tfevents.0000000003.training"))
    record = {"file": 3, "began": 1.0, "entries": 36, "digest": "0", "size": 100, "picture": 30}
    (tmp_path / FOLDER / tensorboard._STATE).write_text(json.dumps(record))
    draw_all(tmp_path)
    assert events(tmp_path)[0] == logged(a_log())


def test_times_in_tensorboard_are_those_of_the_steps_without_the_pauses(tmp_path: Path) -> None:
    write(tmp_path, a_log()[:12])
    draw_all(tmp_path)
    write(tmp_path, a_log())
    draw_all(tmp_path)
    times = [event.wall_time for event in opened(tmp_path).Scalars("train/loss")]
    np.testing.assert_allclose(np.diff(times), 0.5, atol=1e-3)


@pytest.mark.parametrize("record", [None, "{", '{"file": 0, "began": 1.0, "digest": "", "size": 9999999}'])
def test_a_lost_or_wrong_record_of_the_events_rewrites_them(tmp_path: Path, record: str | None) -> None:
    write(tmp_path, a_log())
    draw_all(tmp_path)
    state = tmp_path / FOLDER / tensorboard._STATE
    state.unlink() if record is None else state.write_text(record)
    draw_all(tmp_path)
    assert events(tmp_path)[0] == logged(a_log())


def test_threads_that_draw_at_the_same_time_take_turns(tmp_path: Path) -> None:
    write(tmp_path, a_log())
    threads = [threading.Thread(target=draw_all, args=(tmp_path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events(tmp_path)[0] == logged(a_log())
    with Image.open(tmp_path / curves.CURVES) as picture:
        picture.load()


def test_without_matplotlib_and_tensorboard_one_line_says_so_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    write(tmp_path, a_log())
    with caplog.at_level(logging.INFO):
        draw_curves(tmp_path)
        draw_curves(tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in said] == ["matplotlib", "tensorboard"]
    assert all(f"teramito curves {tmp_path}" in line for line in said)
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_a_full_disk_costs_the_pictures_but_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, a_log())

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    draw_curves(tmp_path)
    assert "No space left on device" in caplog.text
    with pytest.raises(OSError, match="No space left"):
        draw_all(tmp_path)


def test_examples_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = [an_example(), an_example("other", None)]
    write_examples(tmp_path, 12, written)
    found = read_examples(tmp_path)
    assert found is not None
    assert (found.step, [e.name for e in found.examples]) == (12, ["phantom, z 0-1", "other"])
    assert [e.voxel_size_nm for e in found.examples] == [(30.0, 8.0, 8.0), None]
    for one, two in zip(found.examples, written, strict=True):
        for key in ("raw", "truth", "semantic", "boundary", "instances"):
            np.testing.assert_array_equal(getattr(one, key), getattr(two, key))


def test_examples_that_cannot_be_read_are_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, a_log())
    path = write_examples(tmp_path, 12, [an_example()])
    path.write_bytes(path.read_bytes()[:300])
    assert [found.name for found in draw_all(tmp_path)] == ["curves.png", FOLDER]
    assert "examples.npz cannot be read" in caplog.text


def test_the_sheet_shows_the_slice_with_the_truth_and_counts_its_instances(tmp_path: Path) -> None:
    write_examples(tmp_path, 12, [an_example()])
    found = read_examples(tmp_path)
    assert found is not None
    row = sheet(found).axes
    captions = [axes.get_xlabel() for axes in row]
    assert [axes.get_title() for axes in row][::4] == ["image", "predicted instances"]
    assert captions[0] == "z 1 of 0-1, 20 x 30 voxels of 8 x 8 nm"
    assert (captions[1], captions[4]) == ("2 instances", "1 instance; red: not in the truth")
    assert row[0].get_ylabel().replace("\n", " ") == "phantom, z 0-1"


def test_a_rim_lies_inside_its_label_and_parts_touching_ones() -> None:
    labels = np.array([[1, 1, 1, 2], [1, 1, 1, 2], [1, 1, 1, 2], [0, 0, 0, 0]])
    assert inner_rim(labels).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_a_prediction_has_the_colour_of_the_truth_it_covers_most() -> None:
    truth = np.array([[3, 3, 3, 5, 5, 0, 0]])
    predicted = np.array([[1, 1, 1, 1, 2, 0, 4]])
    colours = colours_of_truth(truth)
    assert colours_of_predictions(predicted, truth, colours) == {1: colours[3], 2: colours[5], 4: FALSE}
