"""Training on a GPU; these skip without one. Sums there depend on their order, so scores are compared, not bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny_training import begun, config, logged, optimiser, stage, write_discs

from pipeline.training.segmentation.config import VolumeSource
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.train import train
from pipeline.training.segmentation.volumes import load_volume

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

LEARNS: dict[str, Any] = {
    "stages": (stage(60),),
    "optimiser": optimiser(learning_rate=0.04, decay_steps=30),
    "ema_decay": 0.7,
    "validate_every": 60,
    "shards": 1,
}


@pytest.fixture
def volume(tmp_path: Path) -> str:
    return write_discs(tmp_path / "discs.npz")


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16"}, {"precision": "float16"}, {"compile": True}], ids=str
)
def test_a_training_on_a_gpu_finds_dark_discs(volume: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    c = config(volume, tmp_path / "run", validation=(VolumeSource(raw=volume),), device="cuda", **LEARNS, **changes)
    train(c)
    assert [entry["iou"] for entry in logged(c) if "validation" in entry][-1] > 0.6


def test_the_crops_on_a_gpu_are_those_on_a_cpu_but_for_their_noise(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", augmentation="none")
    samples = Samples([load_volume(source, c) for source in c.volumes], c)
    for one, two in zip(samples.batch(3), samples.batch(3, device="cuda"), strict=True):
        assert two.device.type == "cuda"
        np.testing.assert_allclose(one.numpy(), two.cpu().numpy(), atol=1e-5)


def test_a_training_on_a_gpu_goes_on_where_it_stopped(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", device="cuda", shards=1)
    first = begun(c, Group(torch.device("cuda", 0)))
    first.advance()
    first.save()
    again = begun(c, Group(torch.device("cuda", 0)))
    assert again.step == 1
    for one, two in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_two_gpus_train_together(volume: str, tmp_path: Path) -> None:
    changes = {**LEARNS, "shards": 2}
    c = config(volume, tmp_path / "run", validation=(VolumeSource(raw=volume),), device="cuda", processes=2, **changes)
    train(c)
    assert [entry["iou"] for entry in logged(c) if "validation" in entry][-1] > 0.6
