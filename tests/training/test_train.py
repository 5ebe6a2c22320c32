"""Training: it learns, it reproduces, it goes on exactly after any end, and it keeps what was good."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from tiny_training import OPTIONS, begun, config, logged, optimiser, stage, weights, write_discs

from pipeline.errors import BadInput, RunCancelled
from pipeline.model.load import load_model
from pipeline.training import checkpoint
from pipeline.training.optimiser import Optimiser
from pipeline.training.segmentation.config import TrainConfig, VolumeSource
from pipeline.training.segmentation.start import checked_network, initial_weights
from pipeline.training.segmentation.thresholds import SEMANTIC
from pipeline.training.segmentation.train import train
from pipeline.training.state import TrainingDiverged


def started(c: TrainConfig, path: Path) -> subprocess.Popen[bytes]:
    path.write_text(c.model_dump_json())
    command = [sys.executable, "-m", "pipeline.training", str(path)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_for_steps(c: TrainConfig, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len([entry for entry in logged(c) if "loss" in entry]) < steps and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.usefixtures("drawn")
def test_a_short_training_finds_dark_discs_and_their_instances(volume: str, tmp_path: Path) -> None:
    c = config(
        volume,
        tmp_path / "run",
        stages=(stage(60),),
        optimiser=optimiser(learning_rate=0.04, decay_steps=30),
        ema_decay=0.7,
        validate_every=60,
        checkpoint_every=60,
        validation=(VolumeSource(raw=volume),),
    )
    spec = train(c)
    losses = [entry["loss"] for entry in logged(c) if "loss" in entry]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    scores = [entry for entry in logged(c) if "validation" in entry]
    assert [entry["step"] for entry in scores] == [60]
    assert scores[0]["iou"] > 0.6
    assert 0.0 <= scores[0]["ap75"] <= scores[0]["ap50"] <= 1.0
    assert {"curves.png", "examples.png", "examples.npz", "best.pt", "checkpoint.pt"} <= {
        path.name for path in Path(c.output).iterdir()
    }
    assert load_model(spec).spec.thresholds.semantic in SEMANTIC


def test_the_result_is_a_model_that_predicts_as_the_average_did(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run")
    model = load_model(train(c))
    run = begun(c)
    patch = np.random.default_rng(0).random((1, 1, 4, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        expected = run.average(torch.from_numpy(patch)).numpy()
    np.testing.assert_allclose(model.predict(patch), expected, atol=1e-5)
    assert (model.spec.name, model.spec.patch, model.spec.options["norm"]) == ("tiny", (4, 32, 32), "batch")


@pytest.mark.parametrize("architecture", ["resunet-r", "resunet-h-code"])
def test_every_network_trains(volume: str, tmp_path: Path, architecture: str) -> None:
    c = config(volume, tmp_path / "run", architecture=architecture, stages=(stage(4),))
    assert load_model(train(c)).spec.architecture == architecture


def test_a_network_of_the_users_own_trains_and_its_file_comes_with_the_model(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Mine(nn.Module):\n    multiple = (1, 1, 1)\n\n"
        "    def __init__(self, width=4):\n        super().__init__()\n"
        "        self.a, self.b = nn.Conv3d(1, width, 3, padding=1), nn.Conv3d(width, 2, 1)\n\n"
        "    def logits(self, x):\n        return self.b(torch.relu(self.a(x)))\n\n"
        "    def forward(self, x):\n        return self.logits(x).sigmoid()\n"
    )
    monkeypatch.chdir(tmp_path)
    c = config(volume, tmp_path / "run", architecture="mine.py:Mine", options={"width": 3}, stages=(stage(4),))
    spec = train(c)
    assert (spec.parent / "mine.py").read_bytes() == (tmp_path / "mine.py").read_bytes()
    result = load_model(spec).predict(np.zeros((1, 1, 2, 16, 16), np.float32))
    assert result.shape == (1, 2, 2, 16, 16)


def test_training_twice_gives_the_same_bits(volume: str, tmp_path: Path) -> None:
    one, two = (train(config(volume, tmp_path / name)) for name in ("one", "two"))
    assert weights(one) == weights(two)


def test_the_number_of_threads_does_not_decide_the_weights(volume: str, tmp_path: Path) -> None:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            c = config(volume, tmp_path / str(threads), loaders=threads, ahead=threads)
            results.append(weights(train(c)))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_two_processes_end_with_the_bits_of_one_that_computes_both_shards(volume: str, tmp_path: Path) -> None:
    alone = train(config(volume, tmp_path / "one", device="cpu"))
    together = train(config(volume, tmp_path / "two", device="cpu", processes=2))
    assert weights(alone) == weights(together)


@pytest.mark.usefixtures("drawn")
def test_of_two_processes_the_first_alone_writes_events_and_nothing_lies_elsewhere(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    train(config(volume, tmp_path / "run", device="cpu", processes=2))
    assert [path.parent.name for path in tmp_path.rglob("events.*")] == ["tensorboard"]
    assert not list((tmp_path / "here").iterdir())


def test_the_directory_of_a_restorers_training_is_refused(volume: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / checkpoint.FILE, {"config": '{"task": "interpolation"}', "step": 3})
    with pytest.raises(BadInput, match="it is the checkpoint of the training of a network for mitochondria"):
        train(config(volume, tmp_path))


def test_two_processes_end_when_the_first_is_killed(volume: str, tmp_path: Path) -> None:
    import psutil

    c = config(volume, tmp_path / "killed", stages=(stage(100_000),), device="cpu", processes=2)
    process = started(c, tmp_path / "config.json")
    wait_for_steps(c, 2)
    others = psutil.Process(process.pid).children()
    assert len(others) == 1
    process.kill()
    process.wait()
    assert psutil.wait_procs(others, timeout=20)[1] == []


def test_a_process_that_dies_ends_the_training_and_is_named(volume: str, tmp_path: Path) -> None:
    import psutil

    c = config(volume, tmp_path / "run", stages=(stage(100_000),), device="cpu", processes=2, checkpoint_every=1)
    (tmp_path / "config.json").write_text(c.model_dump_json())
    command = [sys.executable, "-m", "pipeline.training", str(tmp_path / "config.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_steps(c, 2)
    psutil.Process(process.pid).children()[0].kill()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "training process 1 of 2 failed, see" in said.splitlines()[-1]
    assert begun(c.model_copy(update={"processes": 1})).step > 0


def test_a_run_killed_without_warning_ends_with_the_bits_of_one_left_alone(volume: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "stages": (stage(8), stage(8, crop=(3, 48, 48), start="best")),
        "validation": (VolumeSource(raw=volume),),
        "checkpoint_every": 3,
        "validate_every": 4,
    }
    c = config(volume, tmp_path / "killed", **changes)
    process = started(c, tmp_path / "config.json")
    wait_for_steps(c, 10)
    process.kill()
    process.wait()
    assert 10 <= logged(c)[-1]["step"] < 16
    resumed, whole = train(c), train(config(volume, tmp_path / "whole", **changes))
    assert weights(resumed) == weights(whole)
    assert resumed.read_text() == whole.read_text()


def test_sigterm_saves_after_the_step_in_hand_and_the_same_command_goes_on(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", stages=(stage(400),), checkpoint_every=1000)
    process = started(c, tmp_path / "config.json")
    wait_for_steps(c, 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    step = torch.load(tmp_path / "run" / checkpoint.FILE, weights_only=True)["step"]
    assert 3 <= step < 400
    assert begun(c).step == step


def test_ctrl_c_inside_the_program_is_a_cancelled_run(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", stages=(stage(400),))
    with pytest.raises(RunCancelled, match="stopped after step 2, saved; the same command goes on from there"):
        train(c, lambda entry: signal.raise_signal(signal.SIGINT) if entry["step"] == 1 else None)
    assert begun(c).step == 2


def test_a_full_disk_leaves_the_previous_checkpoint(
    volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(config(volume, tmp_path / "run"))
    run.advance()
    run.save()

    def full(content: object, file: Any) -> NoReturn:
        file.write(b"half a check")
        raise OSError(28, "No space left on device")

    run.advance()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert begun(run.config).step == 1
    assert [path.name for path in Path(run.config.output).iterdir()] == [checkpoint.FILE]


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_checkpoint(
    volume: str, tmp_path: Path
) -> None:
    c = config(volume, tmp_path / "run")
    run = begun(c)
    run.advance()
    run.save()
    good = [parameter.detach().clone() for parameter in run.network.parameters()]
    run.network.encoder.stem.conv.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"is nan in step 2.*checkpoint before it is kept.*learning_rate"):
        run.advance()
    again = begun(c)
    assert again.step == 1
    assert all(torch.equal(one, two) for one, two in zip(good, again.network.parameters(), strict=True))


def test_a_learning_rate_that_is_far_too_high_is_told_not_written(volume: str, tmp_path: Path) -> None:
    # Exploding weights overflow in a few steps without normalisation.
    c = config(
        volume,
        tmp_path / "run",
        options={**OPTIONS, "norm": "none"},
        optimiser=Optimiser(learning_rate=1e12, warmup_steps=0, gradient_norm=None),
        stages=(stage(30),),
        checkpoint_every=1,
    )
    with pytest.raises(TrainingDiverged):
        train(c)
    stored = torch.load(tmp_path / "run" / checkpoint.FILE, weights_only=True)["network"]
    assert all(torch.isfinite(value).all() for value in stored.values())
    assert not (tmp_path / "run" / "tiny.json").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"optimiser": optimiser(learning_rate=0.02)}, "optimiser.learning_rate"),
        ({"options": {**OPTIONS, "widths": [2, 3, 4, 4, 5]}}, "options"),
        ({"seed": 9}, "seed"),
        ({"precision": "bfloat16"}, "precision"),
        ({"shards": 1}, r"shards \(2 before, 1 now\)"),
        ({"stages": (stage(batch=4),)}, "stages"),
        ({"optimiser": optimiser(decay_steps=5)}, "steps, or optimiser's warm-up, drops or decay_steps"),
    ],
)
def test_going_on_with_another_configuration_is_refused_naming_the_field(
    volume: str, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    run = begun(config(volume, tmp_path / "run"))
    for _ in range(3):
        run.advance()
    run.save()
    with pytest.raises(BadInput, match=f"{field}: a run is resumed with the configuration that its past steps had"):
        begun(config(volume, tmp_path / "run", **changes))


def test_a_longer_run_and_a_later_volume_may_go_on_and_equal_a_run_planned_so(volume: str, tmp_path: Path) -> None:
    late = (VolumeSource(raw=volume), VolumeSource(raw=volume, weight=2.0, from_step=4))
    first = begun(config(volume, tmp_path / "a"))
    for _ in range(3):
        first.advance()
    first.save()
    longer: dict[str, Any] = {"stages": (stage(9),), "volumes": late}
    went_on = train(config(volume, tmp_path / "a", **longer))
    planned = train(config(volume, tmp_path / "b", **longer))
    assert weights(went_on) == weights(planned)


@pytest.mark.parametrize("added", ["best", "last"])
def test_a_stage_added_to_a_finished_training_equals_one_planned_so(volume: str, tmp_path: Path, added: Any) -> None:
    validated: dict[str, Any] = {"validation": (VolumeSource(raw=volume),), "validate_every": 2}
    validated["optimiser"] = optimiser(decay_steps=0)
    validated["freeze_norm_steps"] = 0
    both = (stage(4), stage(3, start=added))
    train(config(volume, tmp_path / "a", **validated, stages=(stage(4),)))
    went_on = train(config(volume, tmp_path / "a", **validated, stages=both))
    assert weights(went_on) == weights(train(config(volume, tmp_path / "b", **validated, stages=both)))


def test_another_start_of_a_stage_that_has_begun_is_refused(volume: str, tmp_path: Path) -> None:
    validated: dict[str, Any] = {"validation": (VolumeSource(raw=volume),), "optimiser": optimiser(decay_steps=0)}
    c = config(volume, tmp_path / "a", **validated, freeze_norm_steps=0, stages=(stage(3), stage(9, start="best")))
    with pytest.raises(RunCancelled):
        train(c, lambda entry: signal.raise_signal(signal.SIGINT) if entry["step"] == 2 else None)
    with pytest.raises(BadInput, match="stages: a run is resumed with the configuration"):
        begun(c.model_copy(update={"stages": (stage(12),)}))


def test_a_stage_from_the_best_weights_after_a_training_without_validation_is_refused(
    volume: str, tmp_path: Path
) -> None:
    plain: dict[str, Any] = {"optimiser": optimiser(decay_steps=0), "freeze_norm_steps": 0}
    train(config(volume, tmp_path / "a", **plain, stages=(stage(2),)))
    validated = {"validation": (VolumeSource(raw=volume),), "stages": (stage(2), stage(2, start="best"))}
    with pytest.raises(BadInput, match=r"they were not validated: there is no .*best.pt. Take start: last"):
        begun(config(volume, tmp_path / "a", **plain, **validated))


def _first_weights(c: TrainConfig) -> dict[str, torch.Tensor] | None:
    return initial_weights(c, checked_network(c))


def test_training_may_start_from_the_weights_of_a_model(volume: str, tmp_path: Path) -> None:
    first = config(volume, tmp_path / "first")
    made = _first_weights(config(volume, tmp_path / "second", initial=str(train(first))))
    assert made is not None
    average = begun(first).average.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in made.items())


def test_a_model_of_another_architecture_is_refused_as_a_start_naming_its_first_layers(
    volume: str, tmp_path: Path
) -> None:
    first = train(config(volume, tmp_path / "first", stages=(stage(4),)))
    c = config(volume, tmp_path / "second", initial=str(first), options={**OPTIONS, "widths": [2, 3, 4, 4, 5]})
    with pytest.raises(BadInput, match=r"initial .*tiny.json: the weights fit the architecture.*the network has 5x4"):
        train(c)


def test_the_best_validated_weights_are_written_rather_than_the_last(volume: str, tmp_path: Path) -> None:
    c = config(volume, tmp_path / "run", validation=(VolumeSource(raw=volume),), validate_every=2)
    run = begun(c)
    run.advance()
    assert run.keep_if_best(0.5)
    kept = {name: value.clone() for name, value in run.average.state_dict().items()}
    run.advance()
    assert not run.keep_if_best(0.5)
    assert run.load_best() == 1
    assert all(torch.equal(value, kept[name]) for name, value in run.average.state_dict().items())


def test_other_validation_volumes_begin_a_new_search_for_the_best(volume: str, tmp_path: Path) -> None:
    one, other = (VolumeSource(raw=volume), VolumeSource(raw=volume, z_range=(0, 2)))
    run = begun(config(volume, tmp_path / "run", validation=(one,)))
    run.advance()
    run.keep_if_best(0.9)
    run.save()
    assert begun(config(volume, tmp_path / "run", validation=(one,))).best == 0.9
    assert begun(config(volume, tmp_path / "run", validation=(other,))).best == -math.inf


def test_recalibration_sets_the_statistics_of_the_average_from_plain_batches(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", recalibration_batches=2))
    before = [buffer.clone() for buffer in run.average.buffers()]
    run.recalibrate()
    changed = [not torch.equal(a, b) for a, b in zip(before, run.average.buffers(), strict=True)]
    assert all(changed)
    assert not run.average.training


def test_frozen_statistics_do_not_move(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", freeze_norm_steps=6))
    before = [buffer.clone() for buffer in run.network.buffers()]
    run.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.buffers(), strict=True))


def test_weight_decay_acts_on_convolutions_not_on_biases_and_normalisation(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", optimiser=optimiser(weight_decay=0.1)))
    decays = {
        id(parameter): group["weight_decay"] for group in run.optimiser.param_groups for parameter in group["params"]
    }
    for name, parameter in run.network.named_parameters():
        assert decays[id(parameter)] == (0.1 if name.endswith("conv.weight") else 0.0), name


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_in_float32_weights(volume: str, tmp_path: Path, precision: Any) -> None:
    run = begun(config(volume, tmp_path / "run", precision=precision))
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    losses = [run.advance()["loss"] for _ in range(3)]
    assert np.isfinite(losses).all()
    assert all(parameter.dtype == torch.float32 for parameter in run.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))


def test_a_compiled_network_takes_the_same_steps(volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The eager backend traces and runs the very graph that inductor would compile, without minutes of compiling.
    asked: list[object] = []
    compiled = torch.compile

    def traced(function: Any) -> Any:
        asked.append(function)
        return compiled(function, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    runs = [begun(config(volume, tmp_path / str(on), compile=on, shards=1)) for on in (True, False)]
    one, two = ([run.advance()["loss"] for _ in range(2)] for run in runs)
    assert len(asked) == 1
    begun(config(volume, tmp_path / "two", compile=True, shards=2))
    assert len(asked) == 1 + 2  # a replica for each shard; tracing begins with the first step
    assert one == pytest.approx(two, rel=1e-5)


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    settings = Optimiser(warmup_steps=2, decay_steps=4, learning_rate=1.0)
    assert [settings.rate(step, 10) for step in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 1.0]
    assert settings.rate(8, 10) == pytest.approx(0.5)
    assert settings.rate(9, 10) < 0.2


def test_the_published_learning_rate_warms_up_from_1e_7_and_drops_at_300000() -> None:
    settings = Optimiser.published()
    assert settings.rate(0, 400_000) == pytest.approx(1e-7 + 1e-4 / 1000, rel=1e-2)
    assert settings.rate(999, 400_000) == pytest.approx(1e-4)
    assert settings.rate(299_999, 400_000) == pytest.approx(1e-4)
    assert settings.rate(300_000, 400_000) == pytest.approx(1e-5)


def test_every_entry_tells_how_long_the_step_waited_for_its_crops(volume: str, tmp_path: Path) -> None:
    entry = begun(config(volume, tmp_path / "run")).advance()
    assert 0.0 <= entry["waited"] <= entry["seconds"]
    assert entry["voxels"] == 2 * 2 * 32 * 32
    assert entry["semantic"] + entry["boundary"] == pytest.approx(entry["loss"], rel=1e-4)


def test_crops_are_made_ahead_of_the_step_that_takes_them(volume: str, tmp_path: Path) -> None:
    run = begun(config(volume, tmp_path / "run", ahead=3))
    run.advance()
    deadline = time.monotonic() + 20
    while not all(made.done() for made in run.loader._made.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(run.loader._made) == [(step, shard) for step in (1, 2, 3) for shard in (0, 1)]


def test_training_needs_torch_numpy_pydantic_and_safetensors_alone(tmp_path: Path) -> None:
    """As on a bare GPU machine: everything else the project uses cannot be imported there."""
    volume = write_discs(tmp_path / "discs.npz")
    c = config(volume, tmp_path / "run", validation=(VolumeSource(raw=volume),))
    (tmp_path / "config.json").write_text(c.model_dump_json())
    script = tmp_path / "bare.py"
    script.write_text(
        "import sys\n"
        "FOREIGN = {'zarr', 'scipy', 'cc3d', 'tifffile', 'dask', 'distributed', 'prefect', 'yaml', 'h5py', 'fsspec',\n"
        "           'pyarrow', 'cloudvolume', 'imagecodecs', 'matplotlib', 'tensorboard', 's3fs'}\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in FOREIGN:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name.split('.')[0] in FOREIGN else found(name, *a)\n"
        "from pipeline.training.__main__ import main\n"
        "sys.exit(main([sys.argv[1]]))\n"
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "config.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scored = [entry for entry in logged(c) if "validation" in entry]
    assert scored and all("iou" in entry and "ap75" not in entry for entry in scored)
    assert (tmp_path / "run" / "tiny.safetensors").exists()
