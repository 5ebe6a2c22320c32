"""The main job with each network: a whole run on a phantom, the same for any blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_run import Result, phantom_values, run_here, settings, write_volume
from torch import Tensor, nn

from pipeline.model.registry import build
from pipeline.model.spec import ModelSpec

SHAPE = (12, 48, 64)
WIDTHS = [2, 3, 4, 4, 4]
PATCH = [4, 32, 32]
OWN_CODE = """
import torch
from torch import nn


class Blurred(nn.Module):
    multiple = (1, 1, 1)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def logits(self, x):
        return self.conv(x)

    def forward(self, x):
        return torch.sigmoid(self.logits(x))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a phantom of 10 nm voxels."""
    return write_volume(tmp_path_factory.mktemp("phantom") / "raw", phantom_values(SHAPE))


class Smooth(nn.Module):
    """A network of nobody's making: mask and boundary are two blurs of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))


def of_family(architecture: str, **options: Any) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        options["widths"] = WIDTHS
        state = build(architecture, options).state_dict()
        for name in [name for name in state if name.endswith("head.conv.weight")]:
            state[name] *= 20  # random weights say little about the image
        save_file(state, folder / "tiny.safetensors")
        return {"architecture": architecture, "options": options, "weights": "tiny.safetensors"}

    return write


def own_class(folder: Path) -> dict[str, Any]:
    (folder / "own.py").write_text(OWN_CODE)
    save_file(build("own.py:Blurred", {}, folder).state_dict(), folder / "tiny.safetensors")
    code = hashlib.sha256(OWN_CODE.encode()).hexdigest()
    fields = {"architecture": "own.py:Blurred", "code_sha256": code, "weights": "tiny.safetensors"}
    return {**fields, "multiple": [1, 1, 1]}


def torchscript(folder: Path) -> dict[str, Any]:
    torch.jit.script(Smooth()).save(folder / "tiny.pt")  # type: ignore[no-untyped-call]
    return {"architecture": "torchscript", "weights": "tiny.pt"}


def exported(folder: Path) -> dict[str, Any]:
    torch.export.save(torch.export.export(Smooth(), (torch.zeros(1, 1, *PATCH),)), folder / "tiny.pt2")
    return {"architecture": "exported", "weights": "tiny.pt2"}


EVERY_NETWORK = {
    "resunet-r": of_family("resunet-r"),
    "resunet-r-residual": of_family("resunet-r", unit="residual", norm="instance"),
    "resunet-r-se": of_family("resunet-r", unit="se"),
    "resunet-h": of_family("resunet-h", norm="batch"),
    "resunet-h-own-skip": of_family("resunet-h", top_skip="own"),
    "resunet-h-code": of_family("resunet-h-code"),
    "resunet-h-code-eca": of_family("resunet-h-code", unit="eca"),
    "own class": own_class,
    "torchscript": torchscript,
    "exported": exported,
}


def written(folder: Path, network: str) -> Path:
    """A model with random weights whose maps lie around one half; its specification."""
    torch.manual_seed(4)
    fields = EVERY_NETWORK[network](folder)
    spec = {
        "name": "tiny",
        "voxel_size_nm": [10.0, 10.0, 10.0],
        "patch": PATCH,
        "overlap": [2, 8, 8],
        "sha256": hashlib.sha256((folder / fields["weights"]).read_bytes()).hexdigest(),
        "thresholds": {"semantic": 0.01, "seed_semantic": 0.02, "seed_boundary": 0.98},
        **fields,
    }
    path = folder / "tiny.json"
    path.write_text(json.dumps(spec))
    ModelSpec.model_validate_json(path.read_text())
    return path


@pytest.mark.parametrize("network", EVERY_NETWORK)
def test_a_run_with_this_network_is_the_same_for_any_blocks(tmp_path: Path, phantom: str, network: str) -> None:
    model = written(tmp_path, network)
    results: list[Result] = []
    for name, block in (("whole", list(SHAPE)), ("cut", [8, 48, 32])):
        changes = {"block.shape": block, "predict.batch": 1 + (name == "cut" and "resunet" in network)}
        results.append(run_here(settings(phantom, tmp_path / name, model, changes)))
    assert np.ptp(results[0].semantic) > 5
    assert not np.array_equal(results[0].semantic, results[0].boundary)
    results[0].require_same(results[1])
