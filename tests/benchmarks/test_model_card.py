"""The scores of a model's card, at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import model_card
from pipeline.model.registry import build
from pipeline.training.segmentation.config import PhantomSource, VolumeSource
from pipeline.training.segmentation.export import export
from tests.training.tiny_training import config, write_discs


def test_the_card_tells_every_volume_and_its_part_in_the_training(tmp_path: Path) -> None:
    c = config(write_discs(tmp_path / "discs.npz"), tmp_path)
    model = export(build(c.architecture, c.options), c, tmp_path)
    reported = (
        ("test", VolumeSource(raw=str(tmp_path / "discs.npz"))),
        ("validation", PhantomSource(phantom_seed=3, shape=(8, 96, 96))),
    )
    rows = model_card.main(str(model), reported, tmp_path)
    assert [row["part"] for row in rows] == ["test", "validation"]
    assert [row["voxels"] for row in rows] == ["4x64x64", "8x96x96"]
    assert rows[0]["truth"] == 4
    assert all(0 <= row[score] <= 1 for row in rows for score in ("iou", "dice", "ap50", "ap75"))
    stored = json.loads((tmp_path / "model_card.json").read_text())["rows"]
    assert {row["model"] for row in stored} == {"tiny"}
