"""The benchmark of noise and of jumps runs at a tiny size, and its faults are of the size that it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import noise
from benchmarks.damaged_volumes import phantom
from pipeline.model.spec import load_spec

TINY = phantom((9, 64, 64))
TRAINING = {
    "options": {"width": 2},
    "steps": 2,
    "crop": [32, 32],
    "patch": [32, 32],
    "overlap": [8, 8],
    "optimiser": {"learning_rate": 0.001, "warmup_steps": 1},
}
FLAT = np.full((5, 64, 64), 128, np.uint8)


def test_every_way_to_run_over_every_fault_is_a_row(tmp_path: Path) -> None:
    settings = {"predict": {"patch": [8, 48, 48]}}
    case = noise.Case(TINY, (("poisson", 60.0),), (1.0,), (30.0, 200.0))
    rows = noise.main([case], tmp_path / "work", TRAINING, settings, tmp_path)
    assert rows == json.loads((tmp_path / "noise.json").read_text())["rows"]
    ways = {(row["fault"], row["way"]): row for row in rows}
    assert list(ways) == [
        *(("none", way) for way in ("as it is", "evened")),
        *(("poisson", way) for way in ("as it is", "noise2noise", "gaussian", "median")),
        *(("jumps", way) for way in ("as it is", "evened")),
    ]
    assert all(row["levels"] == [30.0, 200.0] for row in rows)
    clean, before = ways["none", "as it is"], ways["poisson", "as it is"]
    assert (clean["psnr"], clean["ssim"]) == (100.0, pytest.approx(1.0))
    assert all(ways["poisson", way]["psnr"] > before["psnr"] for way in ("gaussian", "median"))
    assert ways["poisson", "noise2noise"]["psnr"] != before["psnr"]
    assert ways["jumps", "evened"]["jump"] < ways["jumps", "as it is"]["jump"]
    assert (tmp_path / "work/phantom-1005/poisson-60/training/checkpoint.pt").exists(), "it can be gone on with"


def test_with_fixed_levels_the_network_is_the_shipped_one_but_for_its_contrast(tmp_path: Path) -> None:
    given = load_spec(noise.fixed_levels((30.0, 200.0), tmp_path)["model"])
    shipped = load_spec(noise.MODEL)
    assert given.normalisation.statistics(np.ones(256, np.int64)) == (30.0, 170.0)
    assert given.model_copy(update={"normalisation": shipped.normalisation}) == shipped
    assert noise.fixed_levels(None, tmp_path) == {}


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_has_its_deviation_at_the_middle_grey_level(kind: str) -> None:
    assert noise.noisy(FLAT, kind, 20.0).std() == pytest.approx(20.0, rel=0.05)
    assert noise.noisy(FLAT, kind, 20.0).mean() == pytest.approx(128.0, abs=1.0)
    dark = noise.noisy(FLAT // 4, kind, 10.0).std()
    assert dark == pytest.approx(10.0 if kind == "gaussian" else 5.0, rel=0.05)


def test_a_jump_is_one_gain_and_one_shift_of_a_whole_slice() -> None:
    raw = np.broadcast_to(np.array([100, 156], np.uint8), (400, 1, 2))
    jumped = noise.jumping(raw, 2.0).astype(float)
    assert jumped.mean(axis=(1, 2)).std() == pytest.approx(2 * noise.SHIFT, rel=0.1)
    assert np.ptp(jumped, axis=2).std() == pytest.approx(56 * 2 * noise.GAIN, rel=0.1)
    np.testing.assert_array_equal(noise.jumping(raw, 0.0), raw)


def test_the_gaussian_is_the_one_that_comes_nearest() -> None:
    flat = phantom((5, 64, 64))
    flat.raw[:] = 128
    smoothest = noise.best_gaussian(noise.noisy(flat.raw, "gaussian", 20.0), flat)
    assert smoothest.std() < 2.0
    assert noise.best_gaussian(TINY.raw, TINY).std() > 0.9 * TINY.raw.std()
