from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.spec import Thresholds
from pipeline.training import thresholds
from pipeline.training.config import TrainConfig, VolumeSource
from pipeline.training.thresholds import f1, segmented, tuned
from pipeline.training.volumes import LabelledVolume

ISOTROPIC = (10.0, 10.0, 10.0)


def two_touching() -> tuple[np.ndarray, np.ndarray]:
    """Instances that touch, and the maps of a network that is sure of the mask and sees a boundary between them."""
    truth = np.zeros((4, 32, 32), np.int32)
    truth[:, 4:28, 4:16], truth[:, 4:28, 16:28] = 1, 2
    semantic = np.where(truth > 0, 0.96, 0.35).astype(np.float32)
    boundary = np.full(truth.shape, 0.1, np.float32)
    boundary[:, :, 14:18] = 0.65
    return truth, np.stack([semantic, boundary])


def test_touching_objects_come_apart_and_grow_back_to_the_whole_mask() -> None:
    truth, maps = two_touching()
    found = segmented(maps, Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.6), ISOTROPIC)
    np.testing.assert_array_equal(found, truth)


def test_without_the_boundary_they_are_one() -> None:
    maps = two_touching()[1]
    found = segmented(maps, Thresholds(semantic=0.5, seed_semantic=0.9, seed_boundary=0.7), ISOTROPIC)
    assert np.unique(found).tolist() == [0, 1]


def test_small_objects_are_dropped() -> None:
    maps = np.zeros((2, 4, 32, 32), np.float32)
    maps[0, 1, 2:7, 2:7] = 0.99
    assert not segmented(maps, Thresholds(), ISOTROPIC).any()


def test_f1_counts_hits_against_all_objects() -> None:
    truth = np.array([1, 1, 1, 1, 2, 2, 0, 0])
    prediction = np.array([4, 4, 4, 0, 0, 0, 9, 9])
    assert f1(prediction, truth, 0.75) == pytest.approx(2 * 1 / 4)
    assert f1(prediction, truth, 0.76) == 0.0
    assert f1(truth * 0, truth * 0, 0.5) == 1.0


@pytest.fixture
def known_maps(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    truth, maps = two_touching()
    monkeypatch.setattr(thresholds, "probabilities", lambda *_: maps)
    return truth


def test_the_thresholds_chosen_fit_the_maps(known_maps: np.ndarray) -> None:
    config = TrainConfig(
        name="x", output="x", volumes=(VolumeSource(raw="x"),), voxel_size_nm=ISOTROPIC, steps=1, warmup_steps=0
    )
    volume = LabelledVolume("v", known_maps.astype(np.uint8), known_maps, ISOTROPIC, *(None,) * 3)  # type: ignore[arg-type]
    chosen = tuned(None, [volume], config)  # type: ignore[arg-type]
    assert 0.35 < chosen.semantic <= chosen.seed_semantic < 0.96
    assert 0.1 < chosen.seed_boundary <= 0.6
