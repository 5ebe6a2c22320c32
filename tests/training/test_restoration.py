"""Training of restorers: it learns, it goes on exactly after any end, and it refuses what cannot be trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_restoration import config, logged, samples, write_texture

from pipeline.errors import BadInput, RunCancelled
from pipeline.model.restorer import load_restorer
from pipeline.training import checkpoint
from pipeline.training.optimiser import Optimiser
from pipeline.training.record.curves import curves
from pipeline.training.record.history import History
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.loop import RestorationRun
from pipeline.training.restoration.train import train
from pipeline.training.sources import RawSource
from pipeline.training.state import TrainingDiverged
from pipeline.training.task import read_task, require_startable

CONFIGS = Path(__file__).parents[2] / "pipeline" / "training" / "configs"


@pytest.fixture
def texture(tmp_path: Path) -> str:
    return write_texture(tmp_path / "texture.npz")


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("task", ["interpolation", "noise2noise"])
def test_a_short_training_makes_unseen_slices_better_than_their_neighbours_do(
    task: str, texture: str, tmp_path: Path
) -> None:
    unseen = write_texture(tmp_path / "unseen.npz", seed=1)
    c = config(
        texture,
        tmp_path / "run",
        task=task,
        steps=120,
        optimiser=Optimiser(learning_rate=0.004, warmup_steps=5, decay_steps=60),
        ema_decay=0.9,
        validate_every=60,
        validation=(RawSource(raw=unseen),),
    )
    path = train(c)
    scored = [entry for entry in logged(c) if "validation" in entry]
    assert [entry["step"] for entry in scored] == [60, 120]
    assert scored[-1]["gain"] > 0.2
    assert scored[-1]["gain_nearest"] > 1.0
    restorer = load_restorer(path)
    inputs = np.full((1, restorer.spec.channels, 32, 32), 0.5, np.float32)
    assert restorer.restore(inputs).shape == (1, 32, 32)
    assert (restorer.spec.kind, restorer.spec.patch, restorer.spec.overlap) == (task, (32, 32), (8, 8))
    assert {"curves.png", "best.pt", "checkpoint.pt", "tiny.safetensors"} <= {p.name for p in path.parent.iterdir()}


def test_an_untrained_balanced_loss_is_that_of_the_mean_of_the_neighbours(texture: str, tmp_path: Path) -> None:
    c = config(texture, tmp_path, gaps=(1, 2, 3))
    first = RestorationRun(c, samples(c), tmp_path, torch.device("cpu")).advance()
    assert 0.9 < first["loss"] < 1.0  # a little below: no crop is divided by almost nothing


def test_a_training_killed_without_warning_ends_with_the_bits_of_one_left_alone(texture: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 60, "checkpoint_every": 7, "validate_every": 30, "gaps": (1, 2)}
    changes["validation"] = (RawSource(raw=texture),)
    c = config(texture, tmp_path / "killed", **changes)
    (tmp_path / "config.json").write_text(c.model_dump_json())
    command = [sys.executable, "-m", "pipeline.training", str(tmp_path / "config.json")]
    # The bits are those of one number of threads, and other tests of this process may have set another.
    threads = torch.get_num_threads()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    wait_for_step(c, 10)
    process.kill()
    process.wait()
    stored = torch.load(tmp_path / "killed" / checkpoint.FILE, weights_only=True)
    assert 7 <= stored["step"] < 60
    resumed, whole = train(c), train(config(texture, tmp_path / "whole", **changes))
    assert resumed.with_suffix(".safetensors").read_bytes() == whole.with_suffix(".safetensors").read_bytes()
    assert resumed.read_text() == whole.read_text()
    steps = [entry["step"] for entry in logged(c) if "loss" in entry]
    assert steps == list(range(1, 61)), "no step stands in the log twice"


def wait_for_step(c: RestorationConfig, step: int) -> None:
    deadline = time.monotonic() + 120
    while len(logged(c)) < step and time.monotonic() < deadline:
        time.sleep(0.005)


def test_ctrl_c_saves_after_the_step_in_hand(texture: str, tmp_path: Path) -> None:
    c = config(texture, tmp_path, steps=400)
    with pytest.raises(RunCancelled, match="stopped after step 2, saved; the same command goes on from there"):
        train(c, lambda entry: signal.raise_signal(signal.SIGINT) if entry["step"] == 1 else None)
    assert RestorationRun(c, samples(c), tmp_path, torch.device("cpu")).step == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 3}, "batch"),
        ({"is_balanced": False, "seed": 5}, "seed, is_balanced|is_balanced, seed"),
        ({"optimiser": Optimiser(learning_rate=0.001, warmup_steps=1, decay_steps=3)}, r"optimiser\.learning_rate"),
        ({"steps": 4}, "steps, or optimiser's warm-up, drops or decay_steps"),
    ],
)
def test_a_change_of_steps_already_taken_is_refused(
    texture: str, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    train(config(texture, tmp_path))
    with pytest.raises(BadInput, match=rf"({named}).*Restore these fields, or choose another `output`"):
        train(config(texture, tmp_path, **changes))


def test_a_longer_training_goes_on_while_the_rate_is_on_its_plateau(texture: str, tmp_path: Path) -> None:
    flat = Optimiser(learning_rate=0.004, warmup_steps=1)
    train(config(texture, tmp_path, optimiser=flat))
    c = config(texture, tmp_path, optimiser=flat, steps=9)
    train(c)
    assert logged(c)[-1]["step"] == 9


def test_the_directory_of_another_training_is_refused(texture: str, tmp_path: Path) -> None:
    c = config(texture, tmp_path)
    checkpoint.save(tmp_path / checkpoint.FILE, {"config": "{}", "step": 3})
    with pytest.raises(BadInput, match="it is the checkpoint of a restorer's training"):
        train(c)


def test_a_loss_that_is_no_number_stops_the_training(
    texture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = config(texture, tmp_path)
    run = RestorationRun(c, samples(c), tmp_path, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    monkeypatch.setattr(run, "_loss", lambda *_: sum(p.sum() for p in run.network.parameters()) * torch.nan)
    with pytest.raises(TrainingDiverged, match="step 1: training has diverged"):
        run.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": (33, 33), "patch": (32, 31)}, "crop.*multiple of 2.*nearest legal crop is \\[32, 32\\].*patch"),
        ({"crop": (64, 64)}, "at least 3 slices and the size of a crop, 64 x 64.*a smaller crop"),
        ({"gaps": (1, 5)}, "at least 7 slices"),
        ({"volumes": (RawSource(raw="nowhere.npz"),)}, "the file exists"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    texture: str, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=f"(?s){said}"):
        train(config(texture, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_validation_volume_without_a_slice_between_two_others_is_refused(texture: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"of 2 slices.*it has at least 3"):
        train(config(texture, tmp_path, validation=(RawSource(raw=texture, z_range=(0, 2)),)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": (32, 64)}, "height and width are equal"),
        ({"overlap": (32, 8)}, "less than the patch"),
        ({"steps": 3}, "at most their number"),
        ({"options": {"widths": [4, 6], "taps": 4}}, "options of interpolation: taps.*odd"),
        ({"options": {"width": 6}}, "options of interpolation: width: Extra inputs"),
        ({"task": "noise2noise", "gaps": (1, 2)}, "adjacent slices"),
        ({"volumes": ()}, "at least 1 item"),
        ({"volumes": (RawSource(raw="a.npz", weight=0.0),)}, "weight above 0"),
        ({"task": "super-resolution"}, "'interpolation' or 'noise2noise'"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config("a.npz", Path("run"), **changes)


def test_a_configuration_survives_a_round_trip(tmp_path: Path) -> None:
    c = config("a.npz", tmp_path, gaps=(1, 2), validation=(RawSource(raw="b.npz", z_range=(0, 3)),))
    assert RestorationConfig.model_validate_json(c.model_dump_json()) == c


@pytest.mark.parametrize("name", ["interpolation-v1.json", "noise2noise.yaml"])
def test_the_configurations_beside_the_code_can_be_trained(name: str) -> None:
    c = read_task(CONFIGS / name)
    assert isinstance(c, RestorationConfig)
    require_startable(c)


def test_the_curves_of_a_restorer_are_in_decibels() -> None:
    scored = {"step": 1, "validation": "a", "psnr": 20.0, "gain": 1.0, "best": True}
    figure = curves(History(({"step": 1, "loss": 0.5, "rate": 0.1}, scored)), "tiny")
    titles = [axes.get_title(loc="center") for axes in figure.axes]
    assert {"PSNR in dB", "Gain in dB over what needs no network"} <= set(titles)
