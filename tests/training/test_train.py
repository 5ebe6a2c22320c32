from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from pipeline.errors import BadInput
from pipeline.model.load import load_model
from pipeline.training import checkpoint
from pipeline.training.config import TrainConfig, VolumeSource
from pipeline.training.samples import Samples
from pipeline.training.train import TrainingRun, train
from pipeline.training.validation import iou, validate
from pipeline.training.volumes import load_volume


@pytest.fixture
def volume(tmp_path: Path) -> str:
    """Dark discs on bright tissue: what a network of any size learns at once."""
    z, y, x = np.indices((4, 64, 64))
    instances = np.zeros(z.shape, np.uint16)
    for label, (cy, cx) in enumerate([(16, 16), (18, 45), (46, 20), (48, 48)], start=1):
        instances[(y - cy) ** 2 + (x - cx) ** 2 < 90] = label
    noise = np.random.default_rng(0).integers(-20, 20, z.shape)
    raw = np.where(instances > 0, 80, 180) + noise
    path = tmp_path / "discs.npz"
    np.savez(path, raw=raw.astype(np.uint8), instances=instances, voxel_size_nm=np.array([10.0, 10.0, 10.0]))
    return str(path)


def config(volume: str, output: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "volumes": (VolumeSource(raw=volume),),
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "widths": (2, 3, 4, 4, 4),
        "crop": (2, 32, 32),
        "batch": 2,
        "shards": 2,
        "steps": 6,
        "warmup_steps": 1,
        "decay_steps": 3,
        "freeze_norm_steps": 1,
        "learning_rate": 0.01,
        "checkpoint_every": 1,
        "validate_every": 3,
        "patch": (4, 32, 32),
        "overlap": (1, 8, 8),
    }
    return TrainConfig(**(fields | changes))


def begun(c: TrainConfig) -> TrainingRun:
    Path(c.output).mkdir(parents=True, exist_ok=True)
    return TrainingRun(c, Samples([load_volume(source, c) for source in c.volumes], c), Path(c.output))


def log(c: TrainConfig) -> list[dict[str, Any]]:
    path = Path(c.output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def weights(path: Path) -> bytes:
    return path.with_suffix(".safetensors").read_bytes()


def test_a_short_training_finds_dark_discs(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", steps=40, decay_steps=25, learning_rate=0.04, ema_decay=0.7, validate_every=40)
    c = c.model_copy(update={"validation": c.volumes, "checkpoint_every": 40})
    train(c)
    losses = [entry["loss"] for entry in log(c) if "loss" in entry]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert log(c)[-1]["best_iou"] > 0.6


def test_the_result_is_a_model_that_predicts_as_the_average_did(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run")
    model = load_model(train(c))
    run = begun(c)
    patch = np.random.default_rng(0).random((1, 1, 4, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        expected = run.average(torch.from_numpy(patch)).numpy()
    np.testing.assert_allclose(model.predict(patch), expected, atol=1e-5)
    assert (model.spec.name, model.spec.patch, model.spec.norm) == ("tiny", (4, 32, 32), "batch")


def test_training_twice_gives_the_same_bits(volume: str, tmp_path: Path) -> None:
    one, two = (train(config(volume, tmp_path / name)) for name in ("one", "two"))
    assert weights(one) == weights(two)


def test_the_number_of_threads_does_not_decide_the_weights(volume: str, tmp_path: Path) -> None:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(weights(train(config(volume, tmp_path / str(threads)))))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_a_run_killed_without_warning_ends_with_the_bits_of_one_left_alone(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "killed", steps=16)
    path = tmp_path / "config.json"
    path.write_text(c.model_dump_json())
    process = subprocess.Popen([sys.executable, "-m", "pipeline.training.train", str(path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(log(c)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    stopped = log(c)[-1]["step"]
    assert 4 <= stopped < 16
    resumed = train(c)
    assert weights(resumed) == weights(train(config(volume, tmp_path / "whole", steps=16)))


def test_a_full_disk_leaves_the_previous_checkpoint(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(config(volume, tmp_path / "run"))
    run.advance()
    run.save()

    def full(content: object, file: Any) -> NoReturn:
        file.write(b"half a check")
        raise OSError(28, "No space left on device")

    run.advance()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert begun(run.config).step == 1
    assert [path.name for path in Path(run.config.output).iterdir()] == [checkpoint.FILE]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"learning_rate": 0.02}, "learning_rate"),
        ({"widths": (2, 3, 4, 4, 5)}, "widths"),
        ({"seed": 9}, "seed"),
        ({"decay_steps": 5}, "decay_steps"),
    ],
)
def test_going_on_with_another_configuration_is_refused_naming_the_field(
    volume: str, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    run = begun(config(volume, tmp_path / "run"))
    for _ in range(3):
        run.advance()
    run.save()
    with pytest.raises(BadInput, match=f"{field}: a run is resumed with the configuration that its past steps had"):
        begun(config(volume, tmp_path / "run", **changes))


def test_a_longer_run_and_a_later_volume_may_go_on_and_equal_a_run_planned_so(volume: str, tmp_path: Path) -> None:
    late = (VolumeSource(raw=volume), VolumeSource(raw=volume, weight=2.0, from_step=4))
    first = begun(config(volume, tmp_path / "a"))
    for _ in range(3):
        first.advance()
    first.save()
    went_on = train(config(volume, tmp_path / "a", steps=9, volumes=late))
    planned = train(config(volume, tmp_path / "b", steps=9, volumes=late))
    assert weights(went_on) == weights(planned)


def test_training_may_start_from_the_weights_of_a_model(volume: str, tmp_path: Path) -> None:
    first = config(volume, tmp_path / "first")
    second = begun(config(volume, tmp_path / "second", initial=str(train(first))))
    pairs = zip(begun(first).average.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_model_of_another_architecture_is_refused_as_a_start(volume: str, tmp_path: Path) -> None:
    first = train(config(volume, tmp_path / "first", steps=4))
    c = config(volume, tmp_path / "second", initial=str(first), norm="none", widths=(2, 3, 4, 4, 5))
    with pytest.raises(BadInput, match=r"widths \(2, 3, 4, 4, 5\).*That model has \(2, 3, 4, 4, 4\)"):
        begun(c)


def test_recalibration_sets_the_statistics_of_the_average_from_plain_batches(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", recalibration_batches=2))
    before = [buffer.clone() for buffer in run.average.buffers()]
    run.recalibrate()
    changed = [not torch.equal(a, b) for a, b in zip(before, run.average.buffers(), strict=True)]
    assert all(changed)
    assert not run.average.training


def test_frozen_statistics_do_not_move(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", freeze_norm_steps=6))
    before = [buffer.clone() for buffer in run.network.buffers()]
    run.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.buffers(), strict=True))


def test_the_learning_rate_rises_stays_and_falls_to_nothing(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path, steps=10, warmup_steps=2, decay_steps=4, learning_rate=1.0)
    assert [c.rate(step) for step in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 1.0]
    assert c.rate(8) == pytest.approx(0.5)
    assert c.rate(9) < 0.2


def test_validation_reports_the_best_threshold(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run"))
    scores = validate(run.average, run.samples.volumes[0], run.config)
    assert scores["best_iou"] >= scores["iou"]
    assert 0 < scores["best_threshold"] < 1


def test_the_overlap_of_two_masks_is_counted() -> None:
    a, b = np.array([True, True, False, False]), np.array([False, True, True, False])
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a & False, b & False) == 1.0
