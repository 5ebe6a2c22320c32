"""Several networks and test-time augmentation in a run: the same result for any blocks, refusals, cost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Teramito
from numpy.typing import NDArray
from safetensors.torch import save_file
from tiny_run import arguments, job_of, run_here, settings, write_volume

from flows.reports.run import markdown_of
from pipeline.engine.executor import PicklingExecutor
from pipeline.errors import BadInput, RunConflict, StageFailed
from pipeline.image.quantise import quantised
from pipeline.model.load import load_model
from pipeline.model.normalisation import Normalisation, histogram
from pipeline.model.registry import build
from pipeline.model.spec import ModelSpec, load_spec
from pipeline.predict.stage import PredictStage
from pipeline.run.config import parse_config
from pipeline.run.jobs import run_job

SHAPE = (6, 32, 48)
EXTRA = {"instances.minimum_voxels": 0, "predict.device": "cpu"}


def write_model(folder: Path, seed: int, **changes: Any) -> str:
    """A network of random weights whose maps are not flat; the path of its specification."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture = changes.pop("architecture", "resunet-h")
    options = changes.pop("options", {"widths": [2, 3, 2, 2, 2]})
    torch.manual_seed(seed)
    network = build(architecture, options)
    state = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    name = f"net{seed}"
    save_file(
        {key: value * 2 if value.ndim == 5 else value for key, value in state.items()}, folder / f"{name}.safetensors"
    )
    fields: dict[str, Any] = {
        "name": name,
        "architecture": architecture,
        "options": options,
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "patch": (4, 32, 32),
        "overlap": (1, 8, 8),
        "weights": f"{name}.safetensors",
        "sha256": hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest(),
        **changes,
    }
    path = folder / f"{name}.json"
    path.write_text(ModelSpec(**fields).model_dump_json())
    return str(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models of another architecture and normalisation each."""
    folder = tmp_path_factory.mktemp("two")
    return [
        write_model(folder, 1),
        write_model(
            folder, 2, architecture="resunet-r", normalisation=Normalisation(low=10.0, high=60.0, clip=(-2.0, 2.0))
        ),
    ]


def grey(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """Smooth noise."""
    values = np.random.default_rng(3).normal(size=shape)
    for axis in range(3):
        values = values + np.roll(values, 1, axis) + np.roll(values, 2, axis)
    return np.clip(128 + 22 * values, 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A volume of some patches."""
    return write_volume(tmp_path_factory.mktemp("volume") / "raw", grey())


def values(input_: str, output: Path, model: Any, **predict: Any) -> dict[str, Any]:
    """The configuration of a run with these ``predict`` settings."""
    made = settings(input_, output, Path("x"), {**EXTRA, **{f"predict.{k}": v for k, v in predict.items()}})
    return {**made, "model": model}


def stage_of(given: dict[str, Any]) -> PredictStage:
    """The predict stage of a configuration."""
    (stage,) = job_of(given).steps[0].stages
    assert isinstance(stage, PredictStage)
    return stage


def warnings_of(given: dict[str, Any]) -> tuple[str, ...]:
    """What a plan warns of."""
    return run_job(parse_config(given))[0].warnings


@pytest.mark.parametrize(("members", "tta"), [(1, 16), (2, 4)])
def test_variants_and_members_do_not_let_the_blocks_show(
    members: int, tta: int, volume: str, two: list[str], tmp_path: Path
) -> None:
    given = [values(volume, tmp_path / str(n), two[:members], tta=tta, batch=1 + n // 2) for n in range(3)]
    shapes = [16, 64, 64], [4, 32, 48], [6, 20, 48]
    whole, *others = (
        run_here({**one, "block": {"shape": shape}}, executor)
        for one, shape, executor in zip(given, shapes, (None, None, PicklingExecutor()), strict=True)
    )
    for other in others:
        other.require_same(whole)
    assert whole.semantic.std() > 2
    plain = run_here(values(volume, tmp_path / "plain", two[0]))
    assert (plain.semantic != whole.semantic).mean() > 0.5


def test_each_model_sees_the_volume_in_its_own_normalisation(two: list[str], tmp_path: Path) -> None:
    raw = grey((4, 32, 32))
    made = run_here(values(write_volume(tmp_path / "raw", raw), tmp_path / "run", two))
    answers = []
    for model in two:
        rule = load_spec(model).normalisation
        answers.append(load_model(model).predict(rule.apply(raw, rule.statistics(histogram(raw)))[None, None])[0])
    assert np.abs(answers[0] - answers[1]).mean() > 0.01
    expected = quantised((answers[0] + answers[1]) / np.float32(2))
    np.testing.assert_array_equal(made.semantic, expected[0])
    np.testing.assert_array_equal(made.boundary, expected[1])


def test_the_fingerprint_tells_variants_members_and_their_order_apart(
    volume: str, two: list[str], tmp_path: Path
) -> None:
    first, second = two
    chosen = [(first, 0), (first, 4), (first, 8), (second, 0), ([first, second], 0), ([second, first], 0)]
    found = [stage_of(values(volume, tmp_path / "run", model, tta=tta)).fingerprint for model, tta in chosen]
    assert len(set(found)) == len(found)
    assert stage_of(values(volume, tmp_path / "run", [first])).fingerprint == found[0]
    assert stage_of(values(volume, tmp_path / "run", first, batch=4)).fingerprint == found[0]


def test_a_run_resumed_with_other_variants_or_weights_is_refused_and_the_field_is_named(
    volume: str, two: list[str], tmp_path: Path
) -> None:
    changing = write_model(tmp_path / "models", 7)
    given = values(volume, tmp_path / "run", [two[0], changing], tta=4)
    run_here(given)
    before = stage_of(given).fingerprint
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    hashes = [load_spec(two[0]).sha256, load_spec(changing).sha256]
    for facts in (report, recorded, recorded["settings"]):
        assert facts["model_sha256"] == hashes
    assert (report["model"], report["tta"]) == (["net1", "net7"], 4)
    assert recorded["settings"]["model"] == [two[0], changing]
    with pytest.raises(RunConflict, match=r"changed: predict\.tta: 4 -> 16"):
        job_of(values(volume, tmp_path / "run", [two[0], changing], tta=16)).require_place()
    shutil.copy(write_model(tmp_path / "others", 8), changing)
    shutil.copy(tmp_path / "others" / "net8.safetensors", tmp_path / "models" / "net8.safetensors")
    with pytest.raises(RunConflict, match=f"changed: model_sha256: .*{hashes[1]}"):
        job_of(given).require_place()
    assert stage_of(given).fingerprint != before


def test_the_page_of_a_run_names_its_networks_and_variants(volume: str, two: list[str], tmp_path: Path) -> None:
    run_here(values(volume, tmp_path / "run", two, tta=4))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    page = markdown_of(job_of(values(volume, tmp_path / "run", two, tta=4)), report)
    assert "Network: the mean of 2 models, `net1` and `net2`, averaged over 4 mirrored and transposed variants." in page
    plain = markdown_of(job_of(values(volume, tmp_path / "run", two[0])), {**report, "model": "net1", "tta": 0})
    assert "Network: `net1`." in plain


def test_a_run_of_an_ensemble_verifies_and_is_finished(
    volume: str, two: list[str], tmp_path: Path, teramito: Teramito
) -> None:
    run_here(values(volume, tmp_path / "run", two, tta=4))
    assert teramito("verify", str(tmp_path / "run"), "--json").json == {"complete": True, "problems": []}
    with job_of(values(volume, tmp_path / "run", two, tta=4)).opened() as finished:
        assert finished


def test_warming_up_loads_every_model_and_a_worker_checks_the_weights_of_each(
    volume: str, two: list[str], tmp_path: Path
) -> None:
    replaced = write_model(tmp_path / "models", 9)
    stage_of(values(volume, tmp_path / "run", [two[0], replaced])).warm_up()
    weights = tmp_path / "models" / "net9.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    spec = json.loads(Path(replaced).read_text())
    Path(replaced).write_text(json.dumps({**spec, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}))
    with pytest.raises((StageFailed, BadInput), match=r"net9\.json with the weights .*every worker computes with"):
        stage_of(values(volume, tmp_path / "run", [two[0], replaced])).warm_up()


def test_members_that_are_unknown_are_all_named(volume: str, two: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        job_of(values(volume, tmp_path / "run", ["no-such", two[0], "nor/this.json"]))
    assert "model 'no-such'" in str(refused.value)
    assert "model 'nor/this.json'" in str(refused.value)


def test_a_model_is_not_averaged_with_itself(volume: str, two: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"net1\.json': each model of an ensemble is given once"):
        job_of(values(volume, tmp_path / "run", [two[0], two[0]]))
    shutil.copytree(Path(two[0]).parent, tmp_path / "copy")
    copied = tmp_path / "copy" / "net1.json"
    with pytest.raises(BadInput, match=r"copy/net1\.json', the same as .*changes nothing"):
        job_of(values(volume, tmp_path / "run", [two[0], str(copied)]))


def test_members_of_other_voxel_sizes_are_refused_with_both_values(volume: str, two: list[str], tmp_path: Path) -> None:
    coarse = write_model(tmp_path / "coarse", 4, voxel_size_nm=(10.0, 20.0, 20.0))
    with pytest.raises(BadInput) as refused:
        job_of(values(volume, tmp_path / "run", [two[0], coarse]))
    for part in (coarse, two[0], "10x20x20 nm", "10x10x10 nm", "1x2x2", "predict.scale=[1, 1, 1]"):
        assert part in str(refused.value)
    warned = warnings_of(values(volume, tmp_path / "run", [two[0], coarse], scale=[1, 1, 1]))
    assert len(warned) == 1
    assert "net4 was trained at 10x20x20 nm" in warned[0]


def test_thresholds_are_the_first_models_and_a_difference_is_told(volume: str, two: list[str], tmp_path: Path) -> None:
    strict = write_model(tmp_path / "strict", 5, thresholds={"seed_semantic": 0.95})
    (warning,) = warnings_of(values(volume, tmp_path / "run", [two[0], strict]))
    assert "those of net1, the first, are used, not those of net5" in warning
    given = values(volume, tmp_path / "run", [two[0], strict])
    assert warnings_of({**given, "instances": {"seed_above": 0.9}}) == ()
    assert warnings_of({**given, "instances": {"preset": "published"}}) == ()


def test_the_patch_suits_every_member_and_the_swapped_axes(volume: str, two: list[str], tmp_path: Path) -> None:
    wide = write_model(tmp_path / "wide", 6, multiple=(2, 16, 32))
    assert stage_of(values(volume, tmp_path / "run", [two[0], wide], patch=[4, 16, 32])).op.patch == (4, 16, 32)
    with pytest.raises(BadInput, match=r"predict.patch=\[4, 16, 32\].*multiples of \[2, 32, 32\].*is \[4, 32, 32\]"):
        job_of(values(volume, tmp_path / "run", [two[0], wide], patch=[4, 16, 32], tta=8))
    with pytest.raises(BadInput, match=r"predict.patch=\[3, 16, 48\].*multiples of \[2, 16, 32\]"):
        job_of(values(volume, tmp_path / "run", [two[0], wide], patch=[3, 16, 48]))
    assert stage_of(values(volume, tmp_path / "run", two, patch=[4, 16, 48], tta=16)).op.patch == (4, 16, 48)


def test_a_patch_that_is_not_square_runs_with_all_variants(volume: str, two: list[str], tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"patch": [4, 16, 48], "overlap": [1, 4, 8], "tta": 16}
    whole = run_here(values(volume, tmp_path / "one", two[0], **chosen))
    given = {**values(volume, tmp_path / "two", two[0], **chosen), "block": {"shape": [6, 19, 48]}}
    run_here(given).require_same(whole)


def test_plan_shows_what_variants_and_members_cost(
    volume: str, two: list[str], tmp_path: Path, teramito: Teramito
) -> None:
    given = [*arguments(volume, tmp_path / "run", Path(two[0]), EXTRA), "--model", two[1], "--set", "predict.tta=16"]
    said = teramito("plan", *given, "--json")
    assert said.code == 0, said.err
    facts = json.loads(said.out)
    assert (facts["model"], facts["tta"], facts["variants"], facts["members"]) == (["net1", "net2"], 16, 16, 2)
    assert facts["network_calls"] == facts["patches_computed"] * 32
    assert len(facts["seconds_a_call"]) == 2
    assert facts["seconds_a_patch"] == pytest.approx(16 * sum(facts["seconds_a_call"]))
    assert facts["seconds"] > facts["patches_computed"] * facts["seconds_a_patch"] / facts["workers"]
    plain = json.loads(teramito("plan", *arguments(volume, tmp_path / "run", Path(two[0]), EXTRA), "--json").out)
    assert (plain["model"], plain["tta"], plain["variants"], plain["members"]) == ("net1", 0, 1, 1)
    assert plain["network_calls"] == plain["patches_computed"] == facts["patches_computed"]
    assert plain["memory_bytes_a_worker"] <= facts["memory_bytes_a_worker"]
    text = teramito("plan", *given).out
    assert "the mean of net1, net2" in text
    assert (
        f"{facts['network_calls']:,} calls of a patch: {facts['patches_computed']:,} patches x 16 variants x 2 models"
        in text
    )


@pytest.mark.parametrize("tta", ["5", "2", "true", "-4", "'4'"])
def test_another_number_of_variants_is_refused(
    tta: str, volume: str, two: list[str], tmp_path: Path, teramito: Teramito
) -> None:
    said = teramito("plan", *arguments(volume, tmp_path / "run", Path(two[0])), "--set", f"predict.tta={tta}")
    said.refuses("predict.tta=", "0, 4, 8 or 16")
