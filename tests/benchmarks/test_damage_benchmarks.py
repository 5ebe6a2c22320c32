"""The benchmarks of planted damage run at a tiny size, and count as they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from benchmarks import damage, damaged_volumes, denoise_cost
from benchmarks.damaged_volumes import Labelled, phantom
from pipeline.model.interpolation import InterpolationNet
from pipeline.phantom.damage import KINDS, Damage

TINY = phantom((12, 64, 64))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of tiny runs, with an untrained restorer: it gives the mean of the neighbours."""
    folder = tmp_path_factory.mktemp("restorer")
    weights = folder / "tiny.safetensors"
    save_file(InterpolationNet((2, 2), 3).state_dict(), weights)
    spec = {
        "name": "tiny",
        "kind": "interpolation",
        "options": {"widths": [2, 2], "taps": 3},
        "multiple": 2,
        "patch": [32, 32],
        "overlap": [8, 8],
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (folder / "tiny.json").write_text(json.dumps(spec))
    return {"predict": {"patch": [8, 48, 48]}, "denoise": {"model": str(folder / "tiny.json")}}


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    return rows


def test_damage_is_planted_found_and_its_cost_scored(tmp_path: Path, settings: dict[str, Any]) -> None:
    rows = damage.main([TINY], (2.0,), settings, seeds=(11, 12), results=tmp_path)
    assert rows == rows_of(tmp_path, f"damage_{TINY.name.split()[0]}")
    found = [row for row in rows if row["table"] == "detection"]
    assert [row["kind"] for row in found] == ["none", *KINDS]
    assert found[0]["planted"] == 0 and found[0]["recall"] is None
    missing = next(row for row in found if row["kind"] == "missing")
    assert missing["regions_found"] == missing["regions"] > 0 and missing["recall"] > 0.95
    (clean,) = (row for row in rows if row["table"] == "clean")
    assert clean["met"] == (clean["loss"] <= damage.CLEAN_LOSS)
    first, second, mean = (row for row in rows if row["table"] == "damaged")
    assert [row["seed"] for row in (first, second, mean)] == ["11", "12", "mean"]
    for way in ("clean", "damaged", "restored"):
        assert 0 <= first[f"iou_{way}"] <= 1 and mean[f"iou_{way}"] == (first[f"iou_{way}"] + second[f"iou_{way}"]) / 2
    assert min(first["replaced"], second["replaced"]) > 0 and first["planted"] != second["planted"]
    assert (mean["replaced"], mean["strength"]) == ((first["replaced"] + second["replaced"]) / 2, 2.0)


def test_what_each_kind_costs_is_told_for_every_seed_and_on_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(volume: Labelled, raw: Any, settings: dict[str, Any], denoise: str) -> Any:
        lost = (raw != volume.raw).sum(axis=(1, 2)) // (16 if denoise == "auto" else 4)
        return np.stack([2000 - lost, np.full_like(lost, 3000)], axis=1)

    monkeypatch.setattr(damage, "slice_counts", counts)
    long = phantom((24, 64, 64))
    rows = damage.kinds_main([long], (2.0,), (11, 12), results=tmp_path)
    assert rows == rows_of(tmp_path, f"damage_by_kind_{long.name.split()[0]}")
    assert [row["seed"] for row in rows] == [11] * 6 + [12] * 6 + ["mean"] * 6
    for first in range(0, 18, 6):
        kinds, every = rows[first : first + 5], rows[first + 5]
        assert [row["kind"] for row in kinds] == list(KINDS) and every["kind"] == "all"
        assert sum(row["cost"] for row in kinds) == pytest.approx(every["cost"])
        assert every["recovered"] == pytest.approx(0.75, abs=0.01)
    assert 0 < rows[17]["cost"] == pytest.approx((rows[5]["cost"] + rows[11]["cost"]) / 2)


def test_a_run_and_the_truth_are_counted_slice_by_slice(settings: dict[str, Any]) -> None:
    truth = np.zeros_like(TINY.truth)
    truth[3:] = 1
    counts = damage.slice_counts(replace(TINY, truth=truth), TINY.raw, settings, "off")
    assert counts.shape == (12, 2) and not counts[:3, 0].any()
    assert (counts[3:, 1] == 64 * 64).all() and (counts[:, 0] <= counts[:, 1]).all()


def test_the_changes_of_the_slices_add_up_to_that_of_the_iou() -> None:
    before, after = np.array([[40, 60], [30, 30]]), np.array([[20, 70], [30, 40]])
    changes = damage.iou_changes(before, after)
    assert changes.sum() == pytest.approx(50 / 110 - 70 / 90)
    assert changes[0] < changes[1] < 0
    assert not damage.iou_changes(before, before).any()


def test_every_slice_belongs_to_the_damage_nearest_to_it() -> None:
    kinds = TINY.nearest_kinds(2.0, 12)
    damage_of = Damage((12, 64, 64), TINY.voxel_size_nm, 12, 2.0, KINDS, TINY.spacing)
    events = {z: event.kind for z in range(12) if (event := damage_of.event(z))}
    assert len(kinds) == 12 and len(set(kinds)) > 1
    for z, kind in enumerate(kinds):
        nearest = min(abs(z - at) for at in events)
        assert nearest == min(abs(z - at) for at, other in events.items() if other == kind)


def test_the_cost_of_denoising_is_told_beside_the_prediction(tmp_path: Path, settings: dict[str, Any]) -> None:
    rows = denoise_cost.main([TINY], settings=settings, results=tmp_path)
    assert rows == rows_of(tmp_path, "denoise_cost")
    assert [row["flagged"] for row in rows] == ["detection", "1 %", "16 of 17 slices"]
    assert rows[0]["detection_s"] > 0 == rows[1]["detection_s"]
    assert 0 < rows[1]["replaced"] < rows[2]["replaced"] == pytest.approx(11 / 12, abs=1e-4)
    assert all(row["of_predict"] > 0 and row["predict_s"] > 0 for row in rows)


def test_detection_is_counted_in_pixels_in_regions_and_in_sound_slices() -> None:
    truth, found = np.zeros((2, 3, 10, 10), np.bool_)
    truth[1, :4, :4] = truth[1, 8:, 8:] = True
    found[1, :4, :3] = found[0, 0, :5] = True
    assert damage.detection_scores(found, truth, 3.0) == {
        "planted": 20 / 300,
        "precision": 12 / 17,
        "recall": 12 / 20,
        "regions": 2,
        "regions_found": 1,
        "elsewhere": 5 / 200,
    }
    assert damage.detection_scores(found, truth, 5.0)["regions"] == 1


def test_a_region_that_touches_the_next_slice_is_one_in_each() -> None:
    truth = np.ones((3, 4, 4), np.bool_)
    assert damage.detection_scores(truth, truth, 1.0)["regions"] == 3


def test_what_damage_cost_and_restoring_gave_back_is_a_share() -> None:
    clean, restored, damaged = ({"iou": iou, "ap75": 1.0} for iou in (0.9, 0.8, 0.5))
    row = damage.recovered(clean, damaged, restored)
    assert row["iou_recovered"] == pytest.approx(0.75) and row["iou_met"] is True
    assert row["ap75_recovered"] is None and row["ap75_met"] is None
    assert damage.recovered(clean, damaged, damaged)["iou_met"] is False


def test_one_percent_is_flagged_on_lone_slices() -> None:
    mask = denoise_cost.squares((9, 300, 200), (40.0, 10.0, 10.0))
    assert 0.01 <= mask.mean() < 0.02
    assert not mask[1::2].any()


def test_a_quick_volume_is_the_middle_of_the_plane() -> None:
    raw = np.zeros((2, 400, 100), np.uint8)
    raw[:, 40:360] = 1
    quick = Labelled("", "", raw, raw, (10.0, 10.0, 10.0)).quick()
    assert quick.raw.shape == quick.truth.shape == (2, 320, 100)
    assert quick.raw.all()


def test_the_real_volumes_are_read_with_their_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, tuple[int, int]]] = []

    def fake(name: str, slices: tuple[int, int]) -> Any:
        read.append((name, slices))
        return np.full((2, 1024, 1024), 191, np.uint8)

    monkeypatch.setattr(damaged_volumes, "_read", fake)
    assert damaged_volumes.lucchi().name == "lucchi z 132-164"
    assert damaged_volumes.fly().truth.max() == 1
    assert damaged_volumes.mouse().raw.shape == (2, 512, 512)
    assert [name.split("/")[0] for name, _ in read[::2]] == ["lucchi", "drosophila_vnc", "sbem_mouse"]
    assert [slices for _, slices in read[::2]] == [(132, 165), (0, 20), (0, 20)]
