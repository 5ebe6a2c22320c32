"""The benchmark of restorers runs at a tiny size, and its similarity is the one that others compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks import interpolation
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.train import train
from pipeline.training.sources import RawSource


def volume(path: Path, depth: int) -> RawSource:
    noise = np.random.default_rng(depth).standard_normal((depth, 40, 48))
    smooth = gaussian_filter(noise, (1, 2, 2))
    np.savez(path, raw=np.clip(128 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8))
    return RawSource(raw=str(path))


@pytest.mark.parametrize("task", ["interpolation", "noise2noise"])
def test_each_volume_and_gap_is_a_row_with_every_way_to_make_a_slice(task: str, tmp_path: Path) -> None:
    deep, thin = volume(tmp_path / "deep.npz", 7), volume(tmp_path / "thin.npz", 3)
    fields = {"task": task, "name": "tiny", "output": tmp_path, "volumes": [{"raw": deep.raw}], "steps": 1}
    options = {"widths": [2, 2], "taps": 3} if task == "interpolation" else {"width": 2}
    fields |= {"options": options, "crop": [32, 32], "patch": [32, 32], "overlap": [8, 8], "device": "cpu"}
    fields |= {"optimiser": {"warmup_steps": 1, "learning_rate": 1e-9}}
    path = train(RestorationConfig.model_validate_json(json.dumps(fields, default=str)))
    rows = interpolation.main(path, [deep, thin], results=tmp_path)
    assert rows == json.loads((tmp_path / "interpolation.json").read_text())["rows"]
    if task == "noise2noise":
        assert [row["slices"] for row in rows] == [6, 2]
        return
    assert [(row["volume"][-4:], row["gap"], row["slices"]) for row in rows] == [
        ("deep", 1, 5),
        ("deep", 2, 4),
        ("deep", 3, 3),
        ("thin", 1, 1),
    ]
    for row in rows:
        assert row["psnr_restorer"] == pytest.approx(row["psnr_mean"], abs=0.3), "untrained it is the mean"
        assert row["psnr_mean"] > row["psnr_nearest"]
        assert 0 < row["ssim_nearest"] < row["ssim_mean"] < 1


def test_similarity_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    truth = np.clip(128 + 60 * gaussian_filter(rng.standard_normal((40, 57)), 1.5) * 4, 0, 255).astype(np.uint8)
    image = np.clip(truth + rng.normal(0, 12, truth.shape), 0, 255).astype(np.uint8)
    expected = metrics.structural_similarity(
        truth, image, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert interpolation.ssim(image, truth) == pytest.approx(expected, abs=1e-9)
    assert interpolation.ssim(truth, truth) == pytest.approx(1.0)


def test_nothing_that_is_reported_was_trained_or_selected_on() -> None:
    folder = Path(interpolation.__file__).parents[1] / "pipeline" / "training" / "configs"
    config = RestorationConfig.model_validate_json((folder / "interpolation-v1.json").read_text())
    for held in interpolation.HELD_OUT:
        assert held.z_range is not None
        for used in (*config.volumes, *config.validation):
            if used.raw.partition("[")[0] == held.raw:
                stop = used.z_range[1] if used.z_range else int(used.raw.partition("[")[2].split(":")[1].split(",")[0])
                assert stop <= held.z_range[0], f"{used.raw} reaches into the slices that are reported"
