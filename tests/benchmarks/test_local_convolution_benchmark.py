"""The benchmark of the adaptive separable convolution runs at a tiny size, and its methods compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import local_convolution


def test_every_method_is_measured(tmp_path: Path) -> None:
    rows = local_convolution.main(16, (3, 5), 0.001, results=tmp_path)
    assert rows == json.loads((tmp_path / "local_convolution.json").read_text())["rows"]
    assert [(row["taps"], row["method"]) for row in rows] == [(t, m) for t in (3, 5) for m in local_convolution.METHODS]
    assert all(row["with_gradient_ms"] > 0 and row["forward_mib"] >= 0 for row in rows)


@pytest.mark.parametrize("method", ["unfold", "tap by tap"])
def test_the_methods_compute_the_same(method: str) -> None:
    inputs = local_convolution.pair(20, 5, "cpu")
    expected = local_convolution.METHODS["product"](*inputs)
    torch.testing.assert_close(local_convolution.METHODS[method](*inputs), expected)
