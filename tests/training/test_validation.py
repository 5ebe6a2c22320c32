"""Scores on the way, and the thresholds a model is shipped with: the pipeline's own prediction and instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from tiny_training import begun, config, stage, write_discs

from pipeline.engine.executor import SerialExecutor
from pipeline.engine.step import run_step
from pipeline.evaluation.blockwise import evaluate
from pipeline.model.spec import Thresholds
from pipeline.run.config import parse_config
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume
from pipeline.training.segmentation import thresholds, validation
from pipeline.training.segmentation.config import VolumeSource
from pipeline.training.segmentation.train import train
from pipeline.training.segmentation.validation import PredictedMaps, mean_score, predicted, scores, segmented
from pipeline.training.segmentation.volumes import LabelledVolume, load_volume

ISOTROPIC = (10.0, 10.0, 10.0)


def two_touching() -> tuple[NDArray[np.int32], PredictedMaps]:
    """Instances that touch, and the maps of a network that is sure of the mask and sees a boundary between them."""
    truth = np.zeros((4, 32, 32), np.int32)
    truth[:, 4:28, 4:16], truth[:, 4:28, 16:28] = 1, 2
    semantic = np.where(truth > 0, 245, 90).astype(np.uint8)
    boundary = np.full(truth.shape, 25, np.uint8)
    boundary[:, :, 14:18] = 166
    return truth, PredictedMaps(semantic, boundary)


def labelled(truth: NDArray[np.int32]) -> LabelledVolume:
    none = np.zeros(0)
    return LabelledVolume("v", truth.astype(np.uint8), truth, ISOTROPIC, none, none, none)  # type: ignore[arg-type]


def test_touching_objects_come_apart_and_grow_back_to_the_whole_mask() -> None:
    truth, maps = two_touching()
    found = segmented(maps, Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.6), ISOTROPIC)
    np.testing.assert_array_equal(found, truth)


def test_without_the_boundary_they_are_one() -> None:
    found = segmented(two_touching()[1], Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.7), ISOTROPIC)
    assert np.unique(found).tolist() == [0, 1]


def test_small_objects_are_dropped() -> None:
    semantic = np.zeros((4, 32, 32), np.uint8)
    semantic[1, 2:7, 2:7] = 250
    assert not segmented(PredictedMaps(semantic, np.zeros_like(semantic)), Thresholds(), ISOTROPIC).any()


def test_perfect_maps_score_one_and_a_fused_pair_loses_its_instances() -> None:
    truth, maps = two_touching()
    volume = labelled(truth)
    good = scores(maps, volume, Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.6))
    assert good == {"iou": 1.0, "dice": 1.0, "ap50": 1.0, "ap75": 1.0, "instances": 2}
    fused = scores(maps, volume, Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.7))
    assert (fused["iou"], fused["ap75"], fused["instances"]) == (1.0, 0.0, 1)
    assert mean_score([good]) == 1.0
    assert mean_score([good, fused]) == pytest.approx(0.75)


def test_where_instances_cannot_be_made_the_mask_alone_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (validation, thresholds):
        monkeypatch.setattr(module, "can_label", lambda: False)
    truth, maps = two_touching()
    chosen = thresholds.tuned([maps], [labelled(truth)])
    assert scores(maps, labelled(truth), chosen) == {"iou": 1.0, "dice": 1.0}


@pytest.mark.parametrize("quick", [False, True])
def test_the_thresholds_chosen_fit_the_maps(quick: bool) -> None:
    truth, maps = two_touching()
    chosen = thresholds.tuned([maps], [labelled(truth)], quick)
    assert 90 / 255 < chosen.semantic <= chosen.seed_semantic < 245 / 255
    assert 25 / 255 < chosen.seed_boundary <= 166 / 255


def test_validation_gives_the_very_maps_and_scores_of_the_pipeline(volume: str, tmp_path: Path) -> None:
    """The network in training and `teramito run` with the model that comes of it, on the same volume."""
    other = write_discs(tmp_path / "other.npz", depth=6, seed=1)
    seldom = {"validate_every": 10, "checkpoint_every": 20}
    c = config(volume, tmp_path / "train", validation=(VolumeSource(raw=other),), stages=(stage(20),), **seldom)
    spec = train(c)
    held = load_volume(c.validation[0], c)
    run = begun(c)
    run.load_best()
    maps = predicted(run.average, held, c, torch.device("cpu"))
    zarr.save_array(tmp_path / "raw.zarr", held.raw, zarr_format=2)
    zarr.save_array(tmp_path / "truth.zarr", held.instances.astype(np.uint32), zarr_format=2)
    settings = {
        "input": str(tmp_path / "raw.zarr"),
        "output": str(tmp_path / "run"),
        "model": str(spec),
        "voxel_size_nm": ISOTROPIC,
        "block": {"shape": [4, 40, 48]},
    }
    job, plan = run_job(parse_config(settings))
    with job.opened():
        for step in job.steps:
            run_step(job.directory, step, SerialExecutor(), None)
    stored = open_volume(str(tmp_path / "run" / "arrays" / "semantic"))
    np.testing.assert_array_equal(stored.read(stored.box), maps.semantic)
    ours = scores(maps, held, plan.members[0].spec.thresholds)
    theirs = evaluate(
        open_volume(str(tmp_path / "run" / "arrays" / "segmentation")), open_volume(str(tmp_path / "truth.zarr"))
    )
    for key in ("iou", "dice", "ap50", "ap75"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-4)
