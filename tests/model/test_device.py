"""Which device computes is decided in one place, and refused where there is none."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import BadInput
from pipeline.model.device import device_of
from pipeline.model.load import load_model


@pytest.mark.parametrize(
    ("asked", "sees_gpu", "expected"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda:0"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda:0"),
        ("cuda:1", True, "cuda:1"),
    ],
)
def test_auto_takes_the_first_gpu_where_there_is_one(
    asked: str, sees_gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees_gpu)
    assert device_of(asked) == torch.device(expected)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"device: cuda.*it sees none here"):
        device_of("cuda")
    with pytest.raises(BadInput, match=r"device: cuda.*it sees none here"):
        load_model("mito-v1", "cuda")


def test_auto_and_the_device_it_stands_for_load_a_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_model("mito-v1", "auto") is load_model("mito-v1", "cpu")
