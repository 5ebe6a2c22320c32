"""Networks by name, networks of a user, whole networks in a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model import registry
from pipeline.model.load import load_model
from pipeline.model.options import OPTIONS, checked_options
from pipeline.model.registry import build, load_weights, names, register
from pipeline.model.spec import load_spec

NARROW = (2, 3, 4, 5, 6)
CODE = """
import torch
from torch import nn


class MyNet(nn.Module):
    multiple = (1, 2, 2)

    def __init__(self, width=4, gain=1.0):
        super().__init__()
        self.conv = nn.Conv3d(1, width, 3, padding=1)
        self.head = nn.Conv3d(width, 2, 1)
        self.gain = gain

    def logits(self, x):
        return self.gain * self.head(torch.relu(self.conv(x)))

    def forward(self, x):
        return torch.sigmoid(self.logits(x))


class OneChannel(MyNet):
    def logits(self, x):
        return super().logits(x)[:, :1]


class NoLogits(nn.Module):
    multiple = (1, 1, 1)

    def forward(self, x):
        return x


class Helper:
    pass
"""


class Darker(nn.Module):
    """Two channels from one, without weights to train."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(torch.cat([-x, x], 1))


def write(directory: Path, architecture: str, weights: Path, **changes: Any) -> Path:
    """A specification beside its weights."""
    fields = {
        "name": "mine",
        "architecture": architecture,
        "voxel_size_nm": [10.0, 10.0, 10.0],
        "multiple": [1, 2, 2],
        "patch": [4, 8, 8],
        "overlap": [1, 2, 2],
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    path = directory / "mine.json"
    path.write_text(json.dumps({**fields, **changes}))
    return path


def write_own(directory: Path, name: str = "MyNet", **changes: Any) -> Path:
    """The class of a user, its weights and its specification."""
    (directory / "my_net.py").write_text(CODE)
    torch.manual_seed(0)
    network = build(f"my_net.py:{name}", changes.get("options", {}), directory)
    save_file(network.state_dict(), directory / "mine.safetensors")
    code = hashlib.sha256(CODE.encode()).hexdigest()
    return write(directory, f"my_net.py:{name}", directory / "mine.safetensors", **{"code_sha256": code, **changes})


def patches(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.fixture
def _registry() -> Iterator[None]:
    options, networks = dict(OPTIONS), dict(registry._NETWORKS)
    yield
    for live, before in ((OPTIONS, options), (registry._NETWORKS, networks)):
        live.clear()
        live.update(before)  # type: ignore[arg-type]


def test_the_three_networks_of_the_family_are_there() -> None:
    assert names() == ["resunet-h", "resunet-h-code", "resunet-r"]


@pytest.mark.parametrize("architecture", ["resunet-r", "resunet-h", "resunet-h-code"])
def test_a_network_is_random_by_torchs_generator(architecture: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in build(architecture, {"widths": NARROW}).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("architecture", "options", "said"),
    [
        ("resunet-r", {"width": [2, 3, 4, 5, 6]}, "Did you mean widths?"),
        ("resunet-r", {"unit": "cbam"}, "option unit of resunet-r.*'acb', 'residual', 'se' or 'eca'"),
        ("resunet-h", {"widths": [2, 3, 4]}, "option widths"),
        ("resunet-h", {"widths": [0, 3, 4, 5, 6]}, "option widths.0 of resunet-h.*greater than or equal to 1"),
        ("resunet-h-code", {"padding": "replicate"}, "there is no such option"),
        ("resunet-q", {}, "Did you mean resunet-"),
        ("exported", {"widths": [1]}, "there is no such option"),
        ("torchscript", {}, "this one is a file of a whole trained network"),
        ("net.py", {}, "an architecture is a known name, FILE.py:CLASS"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(architecture: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        build(architecture, options)


def test_options_are_stored_with_every_default() -> None:
    assert checked_options("resunet-h-code", {"norm": "batch"}) == {
        "widths": [16, 32, 48, 64, 80],
        "norm": "batch",
        "unit": "acb",
        "upsampling": "transposed",
    }


def test_weights_of_another_architecture_are_refused_naming_the_first_layers() -> None:
    network = build("resunet-r", {"widths": NARROW})
    state = build("resunet-h", {"widths": (2, 3, 4, 5, 7)}).state_dict()
    expected = (
        "here: the weights fit the architecture, because encoder.levels.4.first.conv.weight is 7x5x1x3x3, "
        "the network has 6x5x1x3x3; encoder.levels.4.first.conv.bias is 7, the network has 6; "
    )
    with pytest.raises(BadInput, match=re.escape(expected) + r".*; and \d+ more"):
        load_weights(network, state, "here")


def test_weights_that_fit_are_taken() -> None:
    one, other = (build("resunet-r", {"widths": NARROW}) for _ in range(2))
    load_weights(one, other.state_dict(), "here")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.usefixtures("_registry")
def test_a_registered_class_is_built_and_loaded_by_its_name(tmp_path: Path) -> None:
    class Widths(BaseModel):
        width: int = 3

    @register("plain", Widths)
    class Plain(nn.Module):
        multiple = (1, 1, 1)

        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, width, 1)
            self.head = nn.Conv3d(width, 2, 1)

        def logits(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x))  # type: ignore[no-any-return]

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.logits(x))

    network = build("plain", {"width": 5})
    assert network.conv.out_channels == 5
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    path = write(tmp_path, "plain", tmp_path / "mine.safetensors", options={"width": 5})
    x = patches(2, 1, 3, 4, 6)
    with torch.inference_mode():
        np.testing.assert_allclose(load_model(path).predict(x), network(torch.from_numpy(x)).numpy(), atol=1e-6)
    with pytest.raises(BadInput, match="it is taken"):
        register("plain")(Plain)


@pytest.mark.usefixtures("_registry")
def test_a_class_without_logits_or_multiple_is_refused() -> None:
    with pytest.raises(BadInput, match="it lacks logits, multiple, forward"):
        register("empty")(type("Empty", (nn.Module,), {}))


def test_a_class_in_a_file_beside_the_specification_is_a_network(tmp_path: Path) -> None:
    model, x = load_model(write_own(tmp_path, options={"width": 3, "gain": 2.0})), patches(2, 1, 3, 4, 6)
    assert model.network.gain == 2.0
    assert model.predict(x).shape == (2, 2, 3, 4, 6)
    with torch.inference_mode():
        expected = torch.sigmoid(2 * model.network.head(torch.relu(model.network.conv(torch.from_numpy(x)))))
    np.testing.assert_allclose(model.predict(x), expected.numpy(), atol=1e-6)


def test_changed_code_is_refused_before_it_is_run(tmp_path: Path) -> None:
    path = write_own(tmp_path)
    (tmp_path / "my_net.py").write_text("import pathlib\npathlib.Path('ran').touch()\n" + CODE)
    for action in (load_spec, load_model):
        with pytest.raises(
            BadInput, match=r"the code have the sha256 of the specification.*put its sha256 into code_sha256"
        ):
            action(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code_sha256": None}, "code_sha256: the sha256 of the file of a FILE.py:CLASS architecture"),
        ({"architecture": "my_net.py:MyOtherNet"}, r"has none of that name. It has: MyNet, OneChannel, NoLogits"),
        ({"architecture": "my_net.py:Helper"}, "a torch.nn.Module class of the file"),
        ({"architecture": "my_net.py:NoLogits"}, "it lacks logits"),
        ({"architecture": "gone.py:MyNet"}, "gone.py: the code lie beside the specification"),
        ({"architecture": "../my_net.py:MyNet"}, "an architecture is a known name"),
        ({"options": {"depth": 3}}, r"unexpected keyword argument 'depth'.*It takes \(width=4, gain=1.0\)"),
        ({"options": {"width": 5}}, "conv.weight is 4x1x3x3x3, the network has 5x1x3x3x3"),
        ({"multiple": [1, 1, 1]}, r"a multiple of what the network itself needs, \[1, 2, 2\]"),
        ({"patch": [4, 9, 8]}, r"patch: positive multiples of \[1, 2, 2\]"),
        ({"architecture": "resunet-r"}, "code_sha256: .* and of no other"),
    ],
)
def test_a_specification_that_does_not_fit_the_users_class_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_own(tmp_path)
    with pytest.raises(BadInput, match=said):
        load_model(write_changed(tmp_path, changes))


def write_changed(directory: Path, changes: dict[str, Any]) -> Path:
    path = directory / "mine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_a_network_with_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"here \(2, 2, 3, 4, 6\): semantic, boundary, because this one gives \(2, 1, 3, 4, 6\)"
    ):
        load_model(write_own(tmp_path, "OneChannel")).predict(patches(2, 1, 3, 4, 6))


def test_a_torchscript_file_is_a_network(tmp_path: Path) -> None:
    torch.jit.script(Darker()).save(tmp_path / "mine.pt")  # type: ignore[no-untyped-call]
    path, x = write(tmp_path, "torchscript", tmp_path / "mine.pt", options={"top_width": 7}), patches(2, 1, 3, 4, 6)
    expected = 1 / (1 + np.exp(np.concatenate([x, -x], 1)))
    np.testing.assert_allclose(load_model(path).predict(x), expected, atol=1e-6)
    assert load_spec(path).top_width == 7


@pytest.mark.parametrize("fixed", [1, 2, None])
def test_an_exported_file_is_a_network_for_any_batch(tmp_path: Path, fixed: int | None) -> None:
    example = torch.zeros(fixed or 3, 1, 4, 8, 8)
    batch = {0: torch.export.Dim("batch")} if fixed is None else {}
    torch.export.save(torch.export.export(Darker(), (example,), dynamic_shapes=(batch,)), tmp_path / "mine.pt2")
    path, x = write(tmp_path, "exported", tmp_path / "mine.pt2"), patches(5, 1, 4, 8, 8)
    expected = 1 / (1 + np.exp(np.concatenate([x, -x], 1)))
    np.testing.assert_allclose(load_model(path).predict(x), expected, atol=1e-6)
    with pytest.raises(BadInput, match=r"it was exported for, \(1, 4, 8, 8\).*Set predict.patch"):
        load_model(path).predict(patches(1, 1, 4, 8, 16))


@pytest.mark.parametrize(("architecture", "ending"), [("torchscript", "pt"), ("exported", "pt2")])
def test_a_file_that_is_no_whole_network_is_refused(tmp_path: Path, architecture: str, ending: str) -> None:
    weights = tmp_path / f"mine.{ending}"
    for content in (b"nothing of the kind", b"PK\x03\x04 a broken archive"):
        weights.write_bytes(content)
        with pytest.raises(BadInput, match=f"the weights of architecture {architecture} are a file of that kind"):
            load_model(write(tmp_path, architecture, weights))
    torch.save({"weight": torch.zeros(1)}, weights)
    with pytest.raises(BadInput, match=f"the weights of architecture {architecture} are a file of that kind"):
        load_model(write(tmp_path, architecture, weights))


def test_a_whole_network_has_the_ending_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=r"weights: the name of a file ending in \.pt2"):
        load_spec(write(tmp_path, "exported", tmp_path / "mine.safetensors"))
