"""The benchmark of test-time augmentation runs at a tiny size and scores each choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tta
from pipeline.errors import BadInput
from pipeline.phantom import Phantom
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume

SHAPE = (8, 48, 48)


def stored(path: Path, values: np.ndarray) -> str:
    ome_zarr.create(str(path), SHAPE, SHAPE, SHAPE, str(values.dtype), (10.0, 10.0, 10.0))
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return str(path)


def test_every_choice_is_scored_and_its_cost_told(tmp_path: Path) -> None:
    phantom = Phantom(SHAPE, 7, (10.0, 10.0, 10.0))
    raw = stored(tmp_path / "raw", phantom.raw(phantom.box))
    truth = stored(tmp_path / "truth", phantom.instances(phantom.box))
    settings = {"predict": {"patch": [8, 48, 48]}}
    rows = tta.main(raw, truth, settings=settings, choices=(0, 4), results=tmp_path)
    assert rows == json.loads((tmp_path / "tta.json").read_text())["rows"]
    assert [row["tta"] for row in rows] == [0, 4]
    assert rows[0]["seconds_ratio"] == 1
    assert rows[1]["seconds_ratio"] == round(rows[1]["predict_s"] / rows[0]["predict_s"], 2) > 0
    assert all(0 <= row["iou"] <= 1 and 0 <= row["ap75"] <= 1 for row in rows)
    assert all(row["voxels"] == "8x48x48" and row["volume"].endswith("/raw") for row in rows)


def test_without_data_the_default_volume_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAMITO_DATA", "/data")
    assert tta.lucchi()[1] == "/data/lucchi/train_instances.tif[132:165,192:576,256:768]"
    monkeypatch.delenv("TERAMITO_DATA")
    with pytest.raises(BadInput, match=r"TERAMITO_DATA.*Or give INPUT TRUTH"):
        tta.lucchi()
