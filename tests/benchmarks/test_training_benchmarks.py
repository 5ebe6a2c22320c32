"""The benchmarks of training run at a tiny size, on discs that any network learns, and compare what they say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation, fine_tune, tissue, training_speed
from pipeline.errors import BadInput
from pipeline.training.segmentation.config import PhantomSource, Source, VolumeSource, read_config
from pipeline.training.segmentation.export import export
from tests.training import tiny_training
from tests.training.pictures import undrawn  # noqa: F401
from tests.training.tiny_training import write_discs

BUDGET = ablation.Budget(
    steps=4, crop=(2, 32, 32), batch=2, wide_crop=(2, 48, 48), widths=(2, 3, 4, 4, 4), seeds=(0, 1), shards=1
)
VARIANTS = (ablation.VARIANTS[0], ablation.VARIANTS[-1])


def discs(folder: Path) -> ablation.Tissue:
    trained, tuning, reported = (VolumeSource(raw=write_discs(folder / f"{n}.npz", seed=n)) for n in range(3))
    return ablation.Tissue((trained,), tuning, (reported,))


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    return rows


def test_the_ablation_scores_every_variant_at_one_budget(tmp_path: Path) -> None:
    rows = ablation.main(discs(tmp_path), tmp_path / "runs", BUDGET, VARIANTS, tmp_path)
    assert [row["network"] for row in rows] == ["R", "H (paper)"]
    assert [row["crops"] for row in rows] == ["2x32x32", "2x32x32 then 2x48x48"]
    assert rows[0]["step_ratio"] == 1 and all(row["step_ratio"] > 0 for row in rows)
    assert rows[0]["parameters"] < rows[1]["parameters"]
    assert all(0 <= row[score] <= 1 for row in rows for score in (*ablation.SCORES, "iou_spread"))
    (first, *_) = written(tmp_path, "ablation")
    assert first["trained"].endswith("/0.npz") and first["tuned"].endswith("/1") and first["reported"].endswith("/2")
    assert first["budget"]["seeds"] == [0, 1]


def test_an_ablation_goes_on_from_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, (first, second) = discs(tmp_path), VARIANTS
    budget = dataclasses.replace(BUDGET, seeds=(0,))
    ablation.main(split, tmp_path / "runs", budget, (first,), tmp_path)
    names: list[str] = []
    trained = ablation.trained
    monkeypatch.setattr(
        ablation, "trained", lambda config, volumes: (names.append(config.name), trained(config, volumes))[1]
    )
    rows = ablation.main(split, tmp_path / "runs", budget, (first, second), tmp_path)
    assert names == ["resunet-h-acb-multi-scale-seed0"]
    assert [row["iou_spread"] for row in rows] == [None, None]


@pytest.mark.parametrize("steps", [8, 100, 1000])
def test_two_stages_draw_as_many_voxels_as_one(steps: int) -> None:
    budget = dataclasses.replace(ablation.Budget(), steps=steps)
    (one,), (small, wide) = ablation.stages(budget, False), ablation.stages(budget, True)
    volume = {stage: stage.crop[0] * stage.crop[1] * stage.crop[2] for stage in (one, small, wide)}
    drawn = small.steps * volume[small] + wide.steps * volume[wide]
    assert abs(drawn - one.steps * volume[one]) <= volume[one] / 2
    assert small.steps / wide.steps == pytest.approx(2, rel=0.5 if steps == 8 else 0.05)


def test_the_real_volumes_of_the_ablation_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAMITO_DATA", "/data")
    split = ablation.real_tissue()
    used: dict[str, set[int]] = {}
    for source in (*split.trained, split.tuning, *split.reported):
        assert isinstance(source, VolumeSource) and source.z_range is not None
        slices, before = set(range(*source.z_range)), used.setdefault(source.raw.partition("[")[0], set())
        assert not slices & before
        before |= slices
    assert len(used) == 3


def test_without_data_the_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERAMITO_DATA", raising=False)
    with pytest.raises(BadInput, match=r"TERAMITO_DATA.*folder of the real EM volumes"):
        tissue.require_data()


CASE = training_speed.Case((2, 3, 4, 4, 4), precision="float32", crop=(2, 32, 32), batch=2, steps=2)


def test_training_speed_is_compared_with_the_bare_loop(tmp_path: Path) -> None:
    one = dataclasses.replace(CASE, augmentation="none", shards=1)
    rows = training_speed.main((CASE, one), PhantomSource(phantom_seed=7, shape=(8, 64, 64)), False, tmp_path)
    assert rows == written(tmp_path, "training_speed")
    for row in rows:
        assert row["ratio_to_bare"] == pytest.approx(row["voxels_a_s"] / row["bare_voxels_a_s"], rel=0.1)
        assert row["voxels_a_s"] == pytest.approx(2 * 2 * 32 * 32 / row["step_s"], rel=0.1)
        assert 0 <= row["waited"] <= 1 and row["crop_ms"] > 0 and row["peak_gib"] > 0
    assert [row["augmentation"] for row in rows] == ["default", "none"]


def test_a_case_in_a_process_of_its_own_has_its_own_peak(tmp_path: Path) -> None:
    volume = VolumeSource(raw=write_discs(tmp_path / "discs.npz"))
    held = b"\1" * 2**29
    assert training_speed.apart(CASE, volume)["peak_gib"] < len(held) / 2**30 + 0.2


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_cases_differ_from_the_first_and_from_each_other(kind: str) -> None:
    cases = training_speed.cases(kind)
    assert len(set(cases)) == len(cases) >= 6
    assert all(case.crop == cases[0].crop for case in cases)
    assert {case.precision for case in cases} == {"float32", "bfloat16"}
    assert {case.augmentation for case in cases} == {"default", "published", "none"}


def test_fine_tuning_is_scored_before_and_after(tmp_path: Path) -> None:
    trained, kept_out, reported = (VolumeSource(raw=write_discs(tmp_path / f"{n}.npz", seed=n)) for n in range(3))
    start = tiny_training.config(trained.raw, tmp_path / "start")
    poor = export(tiny_training.begun(start).average, start, tmp_path)
    config = tiny_training.config(
        trained.raw,
        tmp_path / "run",
        initial=str(poor),
        validation=(kept_out,),
        select="last",
        validate_every=40,
        checkpoint_every=40,
        ema_decay=0.9,
        norm_momentum=0.2,
    )
    rows = fine_tune.main(fine_tune.shortened(config, 40), reported, tmp_path)
    own, before, after, trained_by = written(tmp_path, "fine_tune")
    assert rows == [own, before, after]
    assert [row["weights"] for row in rows] == ["tiny", "tiny", "fine-tuned"]
    assert own["thresholds"] == "its own" and before["thresholds"] == after["thresholds"]
    assert after["iou"] > max(own["iou"], before["iou"])
    assert trained_by["training"]["steps"] == 40 and trained_by["config"]["initial"] == "tiny"


def test_the_minutes_of_a_fine_tune_become_steps(tmp_path: Path) -> None:
    config = tiny_training.config(write_discs(tmp_path / "discs.npz"), tmp_path / "run")
    few, many = (fine_tune.steps_in(minutes, config) for minutes in (1e-6, 1000.0))
    assert few == 1 and many > 10_000


def test_a_shortened_fine_tune_keeps_its_schedule() -> None:
    config = read_config(fine_tune.CONFIG)
    half = fine_tune.shortened(config, config.steps // 2)
    assert half.steps == config.steps // 2
    assert half.optimiser.decay_steps == pytest.approx(config.optimiser.decay_steps / 2, abs=1)
    for share in (0.01, 0.2, 0.6, 0.9):
        same = config.rate(int(share * config.steps))
        assert half.rate(int(share * half.steps)) == pytest.approx(same, rel=0.1)


def test_the_shipped_fine_tune_keeps_the_reported_slices_out() -> None:
    config = read_config(fine_tune.CONFIG)
    trained, tuning, reported = (
        _slices(sources) for sources in (config.volumes, config.validation, (fine_tune.REPORTED,))
    )
    assert trained == set(range(12))
    assert tuning == {12, 13, 14}
    assert reported == set(range(15, 20))


def _slices(sources: Sequence[Source]) -> set[int]:
    ranges = [source.z_range for source in sources if isinstance(source, VolumeSource) and source.z_range is not None]
    assert len(ranges) == len(sources)
    return {z for one in ranges for z in range(*one)}
