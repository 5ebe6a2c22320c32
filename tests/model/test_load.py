from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import BadInput
from pipeline.model.load import load_model
from pipeline.model.resunet_h import ResUNetH
from pipeline.model.spec import ModelSpec, load_spec, shipped_names

NARROW = (2, 3, 4, 5, 6)


def write_model(directory: Path, name: str = "tiny", **changes: Any) -> Path:
    torch.manual_seed(3)
    network = ResUNetH(changes.get("widths", NARROW), "batch")
    network.train()(torch.randn(2, 1, 3, 32, 32))
    save_file(network.state_dict(), directory / f"{name}.safetensors")
    return write_spec(directory, name, **changes)


def write_spec(directory: Path, name: str = "tiny", **changes: Any) -> Path:
    weights = directory / f"{name}.safetensors"
    options = {key: changes.pop(key) for key in ("widths", "norm") if key in changes}
    fields = {
        "name": name,
        "options": {"widths": NARROW, "norm": "batch", **options},
        "voxel_size_nm": [10.0, 10.0, 10.0],
        "patch": [4, 32, 32],
        "overlap": [1, 8, 8],
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    path = directory / f"{name}.json"
    path.write_text(json.dumps(fields | changes))
    return path


def patches(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_a_model_predicts_probabilities_of_numpy_patches_and_of_tensors_alike(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path))
    x = patches(2, 1, 3, 32, 16)
    result = model.predict(x)
    assert result.shape == (2, 2, 3, 32, 16)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, model.predict(torch.from_numpy(x)))


def test_a_model_is_loaded_once_in_a_process(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    assert load_model(path) is load_model(str(path))


def test_a_loaded_model_has_no_batchnorm_and_needs_no_gradient(tmp_path: Path) -> None:
    network = load_model(write_model(tmp_path)).network
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("widths", [NARROW, (8, 16, 32, 48, 64)])
def test_the_prediction_has_the_same_bits_for_any_number_of_threads_and_any_batch(
    tmp_path: Path, widths: tuple[int, ...]
) -> None:
    model, x = load_model(write_model(tmp_path, widths=widths)), patches(3, 1, 4, 96, 80)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results += [model.predict(x)[1:2], model.predict(x[1:2])]
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_weights_of_another_hash_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    weights = tmp_path / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match=r"sha256 .*the weights have the sha256 of the specification"):
        load_model(path)


def test_a_pickle_is_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(BadInput, match=r"weights are a safetensors file.*a pickle could run any code"):
        load_model(write_spec(tmp_path))


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(BadInput, match="the weights lie beside the specification"):
        load_model(path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(BadInput, match="the weights fit the architecture"):
        load_model(write_spec(tmp_path, widths=[2, 3, 4, 5, 7]))


@pytest.mark.parametrize("shape", [(1, 1, 2, 16, 17), (1, 1, 2, 8, 16), (1, 2, 2, 16, 16), (2, 16, 16)])
def test_patches_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        BadInput, match=re.escape("patches are (N, 1, D, H, W) with D, H and W multiples of [1, 16, 16]")
    ):
        load_model(write_model(tmp_path)).predict(patches(*shape))


@pytest.mark.parametrize("name", ["no-such-model", "no/such/model.json", "../weights/mito-v1", ""])
def test_an_unknown_model_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(BadInput, match=r"a shipped name or the path of an existing .json.*Shipped: "):
        load_spec(name)


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"norm": "group"},
        {"patch": [4, 30, 32]},
        {"overlap": [4, 0, 0]},
        {"widths": [2, 3, 4]},
        {"sha256": "abc"},
        {"weights": "../tiny.safetensors"},
        {"weights": "tiny.pt"},
        {"channels": ["boundary", "semantic"]},
        {"voxel_size_nm": "10"},
    ],
)
def test_a_wrong_specification_is_refused_naming_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    write_model(tmp_path)
    with pytest.raises(BadInput, match=r"tiny\.json: .*a model specification has the fields of ModelSpec"):
        load_spec(write_spec(tmp_path, **change))


def test_a_specification_survives_a_json_round_trip(tmp_path: Path) -> None:
    spec = load_spec(write_model(tmp_path))
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_specification_of_the_first_version_means_the_same(tmp_path: Path) -> None:
    now = load_spec(write_model(tmp_path))
    path = tmp_path / "tiny.json"
    fields = json.loads(path.read_text())
    options = fields.pop("options")
    path.write_text(json.dumps({**fields, **options, "padding": "replicate"}))
    assert load_spec(path) == now


def test_reading_a_specification_does_not_import_torch() -> None:
    code = "import sys, pipeline.model.spec, pipeline.model.normalisation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_model_loads_and_predicts(name: str) -> None:
    model = load_model(name)
    assert model.spec.name == name
    assert model.predict(patches(1, 1, 2, 32, 32)).shape == (1, 2, 2, 32, 32)
