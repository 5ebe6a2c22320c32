"""Thresholds are chosen on a labelled part, written as a configuration, and give the result that was promised."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import Teramito
from numpy.typing import NDArray
from tiny_run import SMALL, phantom_values, run_here, settings, write_volume

from pipeline.evaluation import Contingency
from pipeline.evaluation.mask import mask_ious
from pipeline.evaluation.tune import Candidate, Choice, LabelledPart, Search, scores_of_candidate
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.model.spec import load_spec
from pipeline.run.config import parse_config

SHAPE = (16, 40, 44)
SIZE = (10.0, 10.0, 10.0)
RUN_SETTINGS = InstanceSettings(minimum_voxels=SMALL["instances.minimum_voxels"])
POOR = {"seed_above": 0.3, "boundary_below": 0.95, "mask_above": 0.3, "grow_nm": 10.0, "minimum_voxels": 0}


def _planted() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """Maps that give exactly the truth if, and only if, every setting is right.

    Two pairs of touching bodies. The semantic map is 0.9 in them and 0.5 in a haze around: 0.5 < mask < 0.9. A pair is
    held apart by a ridge of 0.7 in the boundary map, 4 voxels wide: T2 <= 0.7, growth of 20 nm and more. Nine specks of
    27 voxels: at least 28.
    """
    semantic, boundary = np.zeros(SHAPE), np.full(SHAPE, 0.1)
    truth = np.zeros(SHAPE, np.uint16)
    for pair, y in enumerate((2, 22)):
        semantic[1:11, y - 1 : y + 13, 1:43] = 0.5
        semantic[2:10, y : y + 12, 2:42] = 0.9
        boundary[2:10, y : y + 12, 20:24] = 0.7
        truth[2:10, y : y + 12, 2:22] = 2 * pair + 7
        truth[2:10, y : y + 12, 22:42] = 2 * pair + 8
    for number in range(9):
        semantic[12:15, 36:39, 4 * number + 2 : 4 * number + 5] = 0.9
    return (255 * semantic).astype(np.uint8), (255 * boundary).astype(np.uint8), truth


@pytest.fixture(scope="module")
def labelled() -> LabelledPart:
    return LabelledPart(*_planted(), SIZE)


def _run(folder: Path, teramito: Teramito) -> Path:
    """A run with poor settings on the planted maps, and the truth beside it."""
    folder.mkdir(exist_ok=True)
    semantic, boundary, truth = _planted()
    write_volume(folder / "truth", truth)
    maps = [write_volume(folder / name, values) for name, values in (("sem", semantic), ("bou", boundary))]
    given = [part for name, value in POOR.items() for part in ("--set", f"instances.{name}={value}")]
    assert teramito("instances", *maps, str(folder / "run"), *given).code == 0
    return folder / "run"


def test_the_planted_settings_are_found_written_and_give_the_promised_result(
    tmp_path: Path,
    teramito: Teramito,
) -> None:
    run, truth, config = _run(tmp_path, teramito), str(tmp_path / "truth"), tmp_path / "tuned.yaml"
    said = teramito("tune", str(run), truth, "--output", str(config), "--json")
    assert said.code == 0, said.err
    facts = said.json
    assert facts["present"]["score"] < 0.9
    assert {name: facts["present"][name] for name in POOR} == POOR
    best = facts["best"][0]
    assert (best["iou"], best["ap50_95"], best["ap50"], best["instances"]) == (1.0, 1.0, 1.0, 4)
    assert 0.5 <= best["mask_above"] <= best["seed_above"] < 0.9
    assert best["boundary_below"] <= 0.7
    assert best["grow_nm"] >= 20
    assert 27 < best["minimum_voxels"] <= 1920
    assert any("4 true instances" in warning for warning in facts["warnings"])
    assert "warning: the labelled part has 4 true instances" in said.err

    text = config.read_text()
    assert f"# Chosen by `teramito tune` on {run}, all of it, against {truth}:" in text
    assert "# iou      0." in text and "1.0000 with these settings" in text
    assert {name: yaml.safe_load(text)["instances"][name] for name in POOR} == {name: best[name] for name in POOR}

    maps = [str(tmp_path / name) for name in ("sem", "bou")]
    again = ["--config", str(config), "--set", "block.shape=[7,16,20]"]
    assert teramito("instances", *maps, str(tmp_path / "again"), *again).code == 0
    found = teramito("evaluate", str(tmp_path / "again" / "arrays" / "segmentation"), truth, "--json").json
    assert (found["iou"], found["ap50_95"], found["instances_predicted"]) == (1.0, 1.0, 4)


def test_a_part_is_tuned_on_its_own_truth_and_another_shape_is_refused(
    tmp_path: Path,
    teramito: Teramito,
) -> None:
    run, truth = _run(tmp_path, teramito), str(tmp_path / "truth")
    part = write_volume(tmp_path / "part", _planted()[2][:, :20, :])
    said = teramito("tune", str(run), part)
    said.refuses(f"{part} of (16, 20, 44)", "the shape of the run's volume, (16, 40, 44)", "--crop 0:16,0:20,0:44")
    said = teramito("tune", str(run), truth, "--crop", "0:16,0:20,:")
    said.refuses(f"{truth} of (16, 40, 44)", "--crop 0:16,0:20,:, (16, 20, 44)")
    assert not (run / "tuned.yaml").exists()

    said = teramito("tune", str(run), part, "--crop", "0:16,0:20,:", "--by", "iou")
    assert said.code == 0, said.err
    assert "with 2 true instances" in said.out
    assert "these scores flatter" in said.out
    assert f"--config {run / 'tuned.yaml'}" in said.out
    assert "[0:16,0:20,:]" in (run / "tuned.yaml").read_text()
    assert teramito("verify", str(run)).code == 0
    before = (run / "tuned.yaml").read_text()
    teramito("tune", str(run), truth).refuses("tuned.yaml", "the file must not exist", "another name with --output")
    assert (run / "tuned.yaml").read_text() == before


def test_a_run_tuned_on_its_own_result_keeps_its_settings(tmp_path: Path, tiny_model: Path, teramito: Teramito) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((12, 48, 64)))
    run_here(settings(where, tmp_path / "run", tiny_model))
    for missing in ("report.json", "ledgers/relabel.ledger"):  # to tune, it is enough to be predicted
        (tmp_path / "run" / missing).unlink()
    said = teramito("tune", str(tmp_path / "run"), str(tmp_path / "run" / "arrays" / "segmentation"), "--json")
    said.refuses("of stage relabel are missing")  # but the truth must be whole
    shutil.copytree(tmp_path / "run" / "arrays" / "segmentation", tmp_path / "truth")
    facts = teramito("tune", str(tmp_path / "run"), str(tmp_path / "truth"), "--json").json
    assert facts["present"]["score"] == 1.0
    assert facts["instances_truth"] > 2
    assert facts["best"][0] == facts["present"]
    chosen = parse_config({"input": "i", "output": "o", **yaml.safe_load((tmp_path / "run/tuned.yaml").read_text())})
    plans = [instance_plan(given, SIZE, load_spec(str(tiny_model))) for given in (RUN_SETTINGS, chosen.instances)]
    assert plans[0] == plans[1]


def test_maps_given_with_a_crop_are_cropped_once_more(tmp_path: Path, teramito: Teramito) -> None:
    semantic, boundary, truth = _planted()
    larger = [np.pad(values, ((2, 0), (3, 1), (0, 5)), constant_values=99) for values in (semantic, boundary)]
    maps = [write_volume(tmp_path / name, values) for name, values in zip(("sem", "bou"), larger, strict=True)]
    given = [part for name, value in POOR.items() for part in ("--set", f"instances.{name}={value}")]
    run = tmp_path / "run"
    assert teramito("instances", *(f"{one}[2:,3:43,:44]" for one in maps), str(run), *given).code == 0
    part = write_volume(tmp_path / "part", truth[:, :20, :])
    said = teramito("tune", str(run), part, "--crop", ":,0:20,:", "--by", "iou", "--json")
    assert said.code == 0, said.err
    whole = _run(tmp_path / "whole", teramito)
    expected = teramito("tune", str(whole), part, "--crop", ":,0:20,:", "--by", "iou", "--json").json
    assert (said.json["best"], said.json["present"]) == (expected["best"], expected["present"])
    again = teramito("tune", str(run), part, "--crop", ":,0:20,:", "--by", "iou", "--output", str(tmp_path / "other"))
    assert f"teramito instances '{maps[0]}[2:,3:43,:44]' '{maps[1]}[" in again.out  # a shell leaves brackets in quotes
    teramito("tune", str(run), part, "--crop", ":,0:41,:", "--output", str(tmp_path / "t")).refuses(
        "--crop :,0:41,:: it must lie inside the volume", "[0:16,0:40,0:44]", "nearest legal crop is 0:16,0:40,0:44"
    )
    for bad in ("0:16", "a:b,:,:"):
        teramito("tune", str(run), part, "--crop", bad, "--output", str(tmp_path / "t")).refuses(bad)


def test_what_the_run_drops_and_the_search_does_not_is_told(labelled: LabelledPart) -> None:
    small = replace(labelled, **{name: getattr(labelled, name)[:, :20] for name in ("semantic", "boundary", "truth")})
    told = {
        "tissue_mask of the run": InstanceSettings(**POOR, tissue_mask="mask.zarr"),
        "tissue_mask and drop_border of the run": InstanceSettings(**POOR, tissue_mask="mask.zarr", drop_border=True),
    }
    for words, base in told.items():
        tuned = Search(small, base, None, "iou").run()
        (warning,) = (one for one in tuned.warnings if "tissue_mask" in one)
        assert warning.startswith(f"{words}: not counted in these scores")
        assert tuned.settings.tissue_mask == "mask.zarr"
    assert not any("of the run" in one for one in Search(small, InstanceSettings(**POOR), None, "iou").run().warnings)


def test_what_cannot_be_tuned_on_is_refused(
    tmp_path: Path,
    teramito: Teramito,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, truth = _run(tmp_path, teramito), str(tmp_path / "truth")
    empty = write_volume(tmp_path / "empty", np.zeros(SHAPE, np.uint16))
    teramito("tune", str(run), empty).refuses("the labelled part must hold at least one instance", "--crop")
    mask = write_volume(tmp_path / "mask", np.zeros(SHAPE, np.float32))
    teramito("tune", str(run), mask).refuses("of dtype float32", "instance ids, whole numbers")
    negative = write_volume(tmp_path / "negative", np.full(SHAPE, -1, np.int32))
    teramito("tune", str(run), negative).refuses("it holds negative values")
    teramito("tune", str(run), truth, "--by", "dice").refuses("--by dice", "mean, iou, ap50, ap75, ap50_95")
    teramito("tune", str(tmp_path), truth).refuses("this is no run directory")
    teramito("tune", str(tmp_path / "nosuch"), truth).refuses("nosuch: this is no run directory")
    teramito("tune", str(run), truth, "--output", str(tmp_path / "no" / "t.yaml")).refuses("the folder", "must exist")
    teramito("tune", str(run), truth, "--crop", "0:99,:,:").refuses("must lie inside the volume")
    monkeypatch.setattr("pipeline.evaluation.labelled_part.LARGEST_VOXELS", 1000)
    teramito("tune", str(run), truth).refuses("28,160 voxels", "at most 1,000 voxels in memory", "--crop z0:z1")
    assert not (run / "tuned.yaml").exists()


def test_the_search_does_not_depend_on_threads_and_never_ends_worse_than_the_present(labelled: LabelledPart) -> None:
    small = replace(labelled, **{name: getattr(labelled, name)[:, :20] for name in ("semantic", "boundary", "truth")})
    found = [Search(small, InstanceSettings(**POOR), None, "ap75", threads).run() for threads in (1, 3)]
    assert found[0] == found[1]
    assert found[0].ranked[0].scores["ap75"] >= found[0].present.scores["ap75"]
    assert len({candidate.choice for candidate in found[0].ranked}) == len(found[0].ranked) > 20


def test_settings_that_are_not_searched_stay(labelled: LabelledPart) -> None:
    base = InstanceSettings(preset="published", connectivity=26, join_gap=2, minimum_um3=0.0001)
    search = Search(labelled, base, None)
    assert search.axes["grow_nm"] == (0.0,)  # the published dilation has no reach
    assert len(search.axes["mask_above"]) == 1
    chosen = search.settings_of(replace(_any_candidate(search), minimum_voxels=50))
    assert (chosen.preset, chosen.connectivity, chosen.join_gap, chosen.grow) == ("published", 26, 2, None)
    assert (chosen.minimum_voxels, chosen.minimum_um3) == (50, None)


def _any_candidate(search: Search) -> Candidate:
    return Candidate(search.present, 0, {})


def test_the_best_on_the_border_of_the_search_is_told(labelled: LabelledPart) -> None:
    # Perfect only without the haze, and the finest mask that is searched still lets some of it in.
    haze = np.where(np.arange(SHAPE[1]) < 20, 246, 252)[:, np.newaxis]
    semantic = np.where(labelled.truth > 0, 255, np.where(labelled.semantic > 0, haze, 0)).astype(np.uint8)
    tuned = Search(replace(labelled, semantic=semantic), InstanceSettings(**POOR), None, "iou").run()
    assert any("mask_above, 0.98, lies on the border" in warning for warning in tuned.warnings)


def test_the_iou_of_every_mask_is_that_of_its_voxels(labelled: LabelledPart) -> None:
    values = (0.0, 0.2, 0.45, 0.55, 0.85, 1.0)

    def iou(value: float) -> float:
        mask, true = labelled.semantic > int(255 * value), labelled.truth > 0
        return float((mask & true).sum() / (mask | true).sum())

    assert mask_ious(labelled.semantic, labelled.truth > 0, values) == {value: iou(value) for value in values}
    assert mask_ious(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 3), np.bool_), (0.5,)) == {0.5: 1.0}


@pytest.mark.parametrize("least", [0, 2, 3, 5, 100])
def test_dropping_small_instances_from_the_table_equals_dropping_their_voxels(least: int) -> None:
    random = np.random.default_rng(3)
    found, truth = random.integers(0, 30, (2, 4, 5, 6))
    sizes = np.bincount(found.ravel(), minlength=31)
    kept = np.where(sizes[found] >= least, found, 0)
    table, expected = Contingency.of(found, truth).without_small_predictions(least), Contingency.of(kept, truth)
    for name in ("prediction", "truth", "voxels"):
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))
    assert scores_of_candidate(table) == scores_of_candidate(expected)


def test_the_present_thresholds_are_shown_as_they_were_given(labelled: LabelledPart) -> None:
    search = Search(labelled, InstanceSettings(preset="published"), None)
    assert search.present == Choice(0.9, 0.8, 0.9, 0.0)
    assert json.dumps(search.settings_of(_any_candidate(search)).model_dump())
