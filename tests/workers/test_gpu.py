"""One worker on each GPU, and a clear word where there is none."""

from __future__ import annotations

import pytest

from pipeline.errors import BadInput
from workers import gpu


def test_each_worker_sees_one_gpu() -> None:
    assert [pin["CUDA_VISIBLE_DEVICES"] for pin in gpu.pins(None, ["0", "1", "2"])] == ["0", "1", "2"]
    assert [pin["CUDA_VISIBLE_DEVICES"] for pin in gpu.pins(2, ["4", "GPU-ab12"])] == ["4", "GPU-ab12"]


def test_gpus_hidden_from_the_driver_stay_hidden_from_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_torch_count", lambda: 2)
    assert gpu.visible_gpus({"CUDA_VISIBLE_DEVICES": "3, MIG-77"}) == ["3", "MIG-77"]
    assert gpu.visible_gpus({}) == ["0", "1"]


def test_no_gpu_is_refused_and_the_local_kind_named() -> None:
    with pytest.raises(BadInput, match=r"cluster\.kind: cuda: needs a GPU .* Use cluster\.kind: local"):
        gpu.pins(None, [])


def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(BadInput, match=r"cluster\.workers: 3: .* at most 2 here.* Use cluster\.workers: 2"):
        gpu.pins(3, ["0", "1"])
