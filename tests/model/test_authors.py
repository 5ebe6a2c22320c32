"""Checkpoints of the authors become models that compute what the published networks compute."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import State, checkpoint_h, checkpoint_r, logits_h, logits_r
from torch import Tensor, nn
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import BadInput
from pipeline.model.authors import import_checkpoint, layer_names, network_of, read_checkpoint
from pipeline.model.load import load_model
from pipeline.model.spec import load_spec

R, H = (2, 3, 4, 5, 6), (3, 4, 2, 5, 4)
SIZE = (30.0, 8.0, 8.0)
BOTH = [("resunet-r", checkpoint_r, R, logits_r), ("resunet-h-code", checkpoint_h, H, logits_h)]
Logits = Callable[[State, Tensor], Tensor]


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("code-was-run",)


def save(path: Path, state: State, prefix: str = "", legacy: bool = False) -> Path:
    """A file as the authors' trainer writes it."""
    network = nn.Linear(2, 2)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [300_000])
    content = {
        "iteration": 85_000,
        "state_dict": OrderedDict((prefix + name, value) for name, value in state.items()),
        "optimizer": optimiser.state_dict(),
        "lr_scheduler": schedule.state_dict(),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize(("architecture", "make", "widths", "logits"), BOTH)
@pytest.mark.parametrize("size", [(3, 32, 16), (1, 16, 48)])
def test_an_imported_network_computes_what_the_published_one_computes(
    architecture: str, make: Any, widths: tuple[int, ...], logits: Logits, size: tuple[int, int, int]
) -> None:
    state, x = make(widths), torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    network = network_of(state, "memory")
    with torch.inference_mode():
        expected = logits(state, x)
        assert float(expected.std()) > 0.05
        assert torch.allclose(network.logits(x), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("architecture", "make", "widths", "logits"), BOTH)
@pytest.mark.parametrize(("prefix", "legacy"), [("", False), ("module.", True)])
def test_a_checkpoint_file_becomes_a_model(
    tmp_path: Path, architecture: str, make: Any, widths: Any, logits: Logits, prefix: str, legacy: bool
) -> None:
    state = make(widths)
    path = import_checkpoint(save(tmp_path / "c.pth.tar", state, prefix, legacy), tmp_path / "models", "rat", SIZE)
    spec = load_spec(path)
    assert (spec.architecture, spec.options["widths"], spec.voxel_size_nm) == (architecture, list(widths), SIZE)
    grey = np.array([0, 51, 255], np.uint8)
    assert spec.normalisation.apply(
        grey, spec.normalisation.statistics(np.ones(256, np.int64))
    ).tolist() == pytest.approx([0, 0.2, 1])
    assert (spec.thresholds.seed_semantic, spec.thresholds.seed_boundary, spec.patch) == (0.9, 0.8, (32, 256, 256))
    x = np.random.default_rng(0).random((1, 1, 2, 32, 32), np.float32)
    expected = torch.sigmoid(logits(state, torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(load_model(path).predict(x), expected, rtol=0, atol=1e-5)


def test_the_published_widths_are_taken_too() -> None:
    for make, widths, count in (
        (checkpoint_r, (28, 36, 48, 64, 80), 1_547_758),
        (checkpoint_h, (16, 32, 48, 64, 80), 1_852_610),
    ):
        network = network_of(make(widths), "memory")
        assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("architecture", ["resunet-r", "resunet-h-code"])
def test_no_two_layers_of_a_checkpoint_become_the_same_layer(architecture: str) -> None:
    names = layer_names(architecture)
    assert len(set(names.values())) == len(names)


def test_a_pickle_with_code_in_it_is_refused_in_one_line_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {"state_dict": checkpoint_r(R), "lr_scheduler": Malicious()}
    torch.save(state, tmp_path / "zip.pth.tar")
    torch.save(state, tmp_path / "legacy.pth.tar", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pth.tar").write_bytes(pickle.dumps(Malicious(), protocol=2))
    for name in ("zip", "legacy", "raw"):
        with pytest.raises(
            BadInput, match=r"tensors, numbers and text only.*could run any code \(GLOBAL posix.mkdir\)"
        ) as error:
            read_checkpoint(tmp_path / f"{name}.pth.tar")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "code-was-run").exists()


@pytest.mark.parametrize("content", [b"", b"hello, this is no checkpoint at all", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.pth.tar").write_bytes(content)
    with pytest.raises(BadInput, match=r"a checkpoint is a file of torch\.save"):
        read_checkpoint(tmp_path / "c.pth.tar")


def test_a_missing_file_and_a_file_without_a_state_dict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a checkpoint is a file"):
        read_checkpoint(tmp_path / "missing.pth.tar")
    torch.save({"iteration": 3, "loss": 0.1}, tmp_path / "c.pth.tar")
    with pytest.raises(BadInput, match="state_dict, because this has iteration, loss"):
        read_checkpoint(tmp_path / "c.pth.tar")


def test_a_checkpoint_of_another_architecture_is_refused_naming_its_first_layers() -> None:
    with pytest.raises(BadInput, match=r"its first layers are conv1.weight, bn1.weight, fc.bias"):
        network_of({name: torch.zeros(1) for name in ("conv1.weight", "bn1.weight", "fc.bias", "x")}, "c.pth.tar")


def test_the_first_mismatching_layers_are_named_as_the_checkpoint_names_them() -> None:
    state = checkpoint_r(R)
    del state["downE.1.1.weight"]
    state["upC.1.1.conv.0.1.weight"] = torch.zeros(4, 4, 3, 3, 1)
    state["attention.weight"] = torch.zeros(7)
    expected = (
        r"c\.tar as resunet-r: the weights fit the architecture, because downE\.1\.1\.weight 2x2x1x3x3 is missing; "
        r"upC\.1\.1\.conv\.0\.1\.weight is 4x4x3x3x1, the network has 4x4x3x3x3; attention\.weight 7 is not in"
    )
    with pytest.raises(BadInput, match=expected):
        network_of(state, "c.tar")


def test_the_wrong_one_of_the_two_networks_is_refused() -> None:
    with pytest.raises(BadInput, match=r"downE.0.1.weight 28x1x1x5x5 is missing; .*; and \d+ more"):
        network_of(checkpoint_h(H), "c.tar", "resunet-r")
    with pytest.raises(BadInput, match="One of: resunet-r, resunet-h-code"):
        network_of(checkpoint_h(H), "c.tar", "resunet-h")


def test_another_up_sampling_kernel_is_refused() -> None:
    state = checkpoint_h(H)
    state["upsample2_c.up.weight"] = torch.full_like(state["upsample2_c.up.weight"], 0.25)
    with pytest.raises(BadInput, match=r"upsample2_c\.up\.weight: the up-sampling is the fixed bilinear kernel"):
        network_of(state, "c.tar")


def test_an_import_overwrites_no_model(tmp_path: Path) -> None:
    source = save(tmp_path / "c.pth.tar", checkpoint_h(H))
    import_checkpoint(source, tmp_path, "human", SIZE)
    with pytest.raises(BadInput, match="an import overwrites no model"):
        import_checkpoint(source, tmp_path, "human", SIZE)


def test_the_command_imports_and_shows_the_model(tmp_path: Path) -> None:
    source = save(tmp_path / "checkpoint_297000.pth.tar", checkpoint_h(H))
    given = ["model", "import", str(source), "--output", str(tmp_path / "m"), "--voxel-size-nm", "30,8,8"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "architecture   resunet-h-code" in done.output
    shown = CliRunner().invoke(app, ["model", "show", str(tmp_path / "m" / "checkpoint_297000.json"), "--json"])
    facts = json.loads(shown.output)
    network = network_of(checkpoint_h(H), "memory")
    assert facts["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert facts["gflop_a_megavoxel"] > 1


def test_the_command_asks_for_the_voxel_size(tmp_path: Path) -> None:
    source = save(tmp_path / "c.pth.tar", checkpoint_h(H))
    failed = CliRunner().invoke(app, ["model", "import", str(source)])
    assert isinstance(failed.exception, BadInput)
    assert "--voxel-size-nm 30,8,8" in str(failed.exception)
    assert not (tmp_path / "models").exists()


def test_the_command_lists_the_shipped_models() -> None:
    listed = json.loads(CliRunner().invoke(app, ["model", "list", "--json"]).output)
    assert listed["mito-v1"].startswith("Narrow Res-UNet-H")
