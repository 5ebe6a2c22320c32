"""What cannot train is refused before any work; what is told and kept while it trains."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import begun, config, logged, stage

from pipeline.engine.lock import run_lock
from pipeline.errors import BadInput, TeramitoError
from pipeline.training.record.log import TrainingLog
from pipeline.training.segmentation.config import VolumeSource
from pipeline.training.segmentation.train import train

_OWN = """
import torch
from torch import nn


class Mine(nn.Module):
    multiple = (1, 8, 8)

    def __init__(self, width=2):
        super().__init__()
        self.a = nn.Conv3d(1, width, 1)

    def logits(self, x):
        return self.a(x)

    def forward(self, x):
        return self.logits(x).sigmoid()
"""


@pytest.mark.parametrize(
    ("wrong", "changes", "said"),
    [
        (("width=2", "width=1"), {}, r"logits gives \(1, 1, 2, 32, 32\): .*here \(1, 2, 2, 32, 32\)"),
        (("return self.a(x)", "raise KeyError(x.ndim)"), {}, "mine.py, line 14, raised KeyError: 5"),
        (("return self.a(x)", "return x.nothing"), {}, "line 14, raised AttributeError"),
        (("super().__init__()", "super().__init__(3)"), {}, "line 10, raised|raised TypeError"),
        (("import torch\n", "import nothing_of_that_name\n"), {}, "line 2, raised ModuleNotFoundError"),
        (("class Mine", "class Mine("), {}, "raised SyntaxError"),
        (("(1, 8, 8)", "(1, 64, 64)"), {}, r"patch \[4, 32, 32\]: .*The nearest legal patch is \[4, 64, 64\]"),
        (("(1, 8, 8)", "8"), {}, r"multiple = 8: it is three whole numbers"),
        (("", ""), {"patch": (4, 36, 32)}, r"patch \[4, 36, 32\]: it is a multiple of \[1, 8, 8\]"),
    ],
)
def test_a_network_that_cannot_train_is_refused_in_one_line_before_any_work(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, changes: dict[str, Any], said: str
) -> None:
    (tmp_path / "mine.py").write_text(_OWN.replace(*wrong))
    monkeypatch.chdir(tmp_path)
    c = config("nowhere.npz", tmp_path / "run", architecture="mine.py:Mine", options={}, **changes)
    with pytest.raises(BadInput, match=said) as caught, run_lock(tmp_path / "run"):
        train(c)
    assert all(line.count(": ") for line in str(caught.value).splitlines())  # a line for each offender
    assert not (tmp_path / "run").exists()


def test_a_validation_volume_that_is_too_small_is_refused_before_the_first_step(volume: str, tmp_path: Path) -> None:
    with np.load(volume) as stored:
        cut = {name: stored[name] if stored[name].ndim < 3 else stored[name][:, 10:20] for name in stored}
    np.savez(tmp_path / "small.npz", **cut)
    c = config(volume, tmp_path / "run", validation=(VolumeSource(raw=str(tmp_path / "small.npz")),))
    with pytest.raises(BadInput, match=r"validation volume .* it is at least \(1, 16, 16\), z y x"):
        train(c)
    assert not (tmp_path / "run").exists()


def test_a_network_edited_after_its_training_began_is_refused(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(_OWN)
    monkeypatch.chdir(tmp_path)
    c = config(volume, tmp_path / "run", architecture="mine.py:Mine", options={}, patch=(4, 32, 32), stages=(stage(4),))

    def edit_on_the_way(entry: dict[str, Any]) -> None:
        (tmp_path / "mine.py").write_text(_OWN.replace("self.a(x)", "-self.a(x)"))

    spec = train(c, edit_on_the_way)
    assert (spec.parent / "mine.py").read_text() == _OWN
    with pytest.raises(BadInput, match=r"mine.py: edited since this training began.*Restore it from"):
        train(c)


def test_no_step_stands_in_the_log_twice_after_a_resume(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", stages=(stage(5),), checkpoint_every=2)
    run = begun(c)
    told = TrainingLog(run.output)
    for number in range(4):
        told.add({name: value for name, value in run.advance().items() if name != "stop"})
        if number == 1:
            run.save()
    with (run.output / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # cut short by a full disk
    train(c)
    assert [entry["step"] for entry in logged(c)] == [1, 2, 3, 4, 5]


def test_a_process_that_cannot_begin_ends_the_training(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TeramitoError, match=r"training process 1 of 2 failed, see .*process-1.log"):
        train(config(volume, tmp_path / "run", device="cpu", processes=2))


def test_recalibration_gives_the_same_bits_for_any_number_of_threads(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", recalibration_batches=2, stages=(stage(crop=(4, 64, 64), batch=2),))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            run = begun(c)
            run.recalibrate()
            found.append([value.clone() for value in run.average.state_dict().values()])
            run.close()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("crop", "nearest"), [((9, 96, 96), "[10, 96, 96]"), ((12, 256, 256), "[12, 160, 160]")])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_that_would_crash_on_a_cpu_is_refused(
    tmp_path: Path, crop: Any, nearest: str, precision: Any
) -> None:
    """torch 2.13 writes beyond its memory in the gradients of such convolutions; found by a crash."""
    c = config("nowhere.npz", tmp_path / "run", stages=(stage(crop=crop),), precision=precision, device="cpu")
    with pytest.raises(BadInput, match=f"precision {precision}.*Take precision float32, or crop {re.escape(nearest)}"):
        train(c)
    with pytest.raises(BadInput, match=r"nowhere\.npz"):
        train(c.model_copy(update={"precision": "float32"}))
