"""Restorers as files: what is loaded, what comes out, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from pipeline.errors import BadInput
from pipeline.model import restorer_spec
from pipeline.model.interpolation import InterpolationNet
from pipeline.model.load import load_model
from pipeline.model.pinned import Shelf
from pipeline.model.restorer import NETWORKS, LoadedRestorer, load_restorer
from pipeline.model.restorer_spec import RESTORERS, RestorerKind, RestorerSpec, load_restorer_spec, restorer_names
from pipeline.model.spec import SHIPPED
from pipeline.model.tensors import to_bytes

OPTIONS: dict[RestorerKind, dict[str, Any]] = {
    "interpolation": {"widths": [4, 6, 8, 8], "taps": 7},
    "noise2noise": {"width": 6},
}
MULTIPLE = {"interpolation": 8, "noise2noise": 32}
KINDS: list[RestorerKind] = list(OPTIONS)
SHA = "0" * 64


def network(kind: RestorerKind) -> nn.Module:
    """With heads that no longer are a delta."""
    torch.manual_seed(0)
    made = NETWORKS[kind](**OPTIONS[kind])
    for head in (*made.vertical, *made.horizontal) if isinstance(made, InterpolationNet) else ():
        nn.init.orthogonal_(head[-1].weight)
    return made


def write_restorer(
    folder: Path, kind: RestorerKind = "interpolation", content: bytes | None = None, **changes: Any
) -> Path:
    content = to_bytes(network(kind).state_dict()) if content is None else content
    (folder / "tiny.safetensors").write_bytes(content)
    fields = {
        "name": "tiny",
        "kind": kind,
        "options": OPTIONS[kind],
        "multiple": MULTIPLE[kind],
        "patch": [64, 64],
        "overlap": [16, 16],
        "weights": "tiny.safetensors",
        "sha256": sha256(content).hexdigest(),
    }
    path = folder / "tiny.json"
    path.write_text(json.dumps(fields | changes))
    return path


def slices(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def plain(kind: RestorerKind, inputs: NDArray[np.float32], *arguments: Any) -> NDArray[np.float32]:
    """What torch's own layers give, not clipped."""
    with torch.inference_mode():
        result: NDArray[np.float32] = network(kind).eval()(torch.from_numpy(inputs), *arguments)[:, 0].numpy()
    return result


@pytest.fixture(autouse=True)
def _one_thread_at_first() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restorer_gives_one_slice_clipped_to_grey_levels(tmp_path: Path, kind: RestorerKind) -> None:
    restorer = load_restorer(write_restorer(tmp_path, kind))
    inputs = slices(2, restorer.spec.channels, 64, 96)
    expected, result = plain(kind, inputs), restorer.restore(inputs)
    assert (result.shape, result.dtype.name, result.flags.c_contiguous) == ((2, 64, 96), "float32", True)
    assert (expected < 0).any() or (expected > 1).any()
    np.testing.assert_allclose(result, expected.clip(0, 1), rtol=0, atol=1e-5)


def test_the_fraction_is_one_number_a_pixel_and_a_half_where_it_is_missing(tmp_path: Path) -> None:
    restorer, inputs, fraction = load_restorer(write_restorer(tmp_path)), slices(2, 2, 32, 40), slices(2, 32, 40)
    half = np.full_like(fraction, 0.5)
    np.testing.assert_array_equal(restorer.restore(inputs, half), restorer.restore(inputs))
    expected = plain("interpolation", inputs, torch.from_numpy(fraction)[:, None]).clip(0, 1)
    np.testing.assert_allclose(restorer.restore(inputs, fraction), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 64), (160, 192)])
def test_any_threads_and_any_batch_give_the_same_bits(
    tmp_path: Path, kind: RestorerKind, size: tuple[int, int]
) -> None:
    restorer = load_restorer(write_restorer(tmp_path, kind))
    inputs = slices(3, restorer.spec.channels, *size)
    expected = restorer.restore(inputs)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        np.testing.assert_array_equal(restorer.restore(inputs), expected)
        alone = np.concatenate([restorer.restore(inputs[i : i + 1]) for i in range(len(inputs))])
        np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_slice_of_any_grey_level_gives_finite_grey_levels(tmp_path: Path, kind: RestorerKind) -> None:
    restorer = load_restorer(write_restorer(tmp_path, kind))
    for grey in (0.0, 1.0):
        result = restorer.restore(np.full((1, restorer.spec.channels, 32, 32), grey, dtype=np.float32))
        assert np.isfinite(result).all()
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_the_unsharp_mask_comes_after_restoring_and_before_clipping(tmp_path: Path, radius: float) -> None:
    mask = {"radius": radius, "amount": 2.0}
    inputs = slices(2, 1, 64, 64)
    result = load_restorer(write_restorer(tmp_path, "noise2noise", unsharp=mask)).restore(inputs)
    restored = plain("noise2noise", inputs)
    blurred = np.stack([gaussian_filter(image, radius, mode="nearest") for image in restored])
    expected = (restored + 2.0 * (restored - blurred)).clip(0, 1)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_a_restorer_is_loaded_once_in_a_process_and_needs_no_gradient(tmp_path: Path) -> None:
    path = write_restorer(tmp_path)
    restorer = load_restorer(path)
    assert restorer is load_restorer(str(path))
    assert isinstance(restorer, LoadedRestorer)
    assert not restorer.network.training
    assert not any(parameter.requires_grad for parameter in restorer.network.parameters())


def test_weights_of_half_the_size_are_computed_with_in_full(tmp_path: Path) -> None:
    half = {name: value.half() for name, value in network("interpolation").state_dict().items()}
    result = load_restorer(write_restorer(tmp_path, content=to_bytes(half))).restore(slices(1, 2, 32, 32))
    expected = plain("interpolation", slices(1, 2, 32, 32)).clip(0, 1)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-2)
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "inputs", "fraction", "said"),
    [
        ("interpolation", (1, 1, 64, 64), None, r"inputs are \(N, 2, H, W\)"),
        ("noise2noise", (1, 2, 64, 64), None, r"inputs are \(N, 1, H, W\)"),
        ("interpolation", (1, 2, 64, 60), None, "multiples of 8"),
        ("interpolation", (2, 64, 64), None, "inputs are"),
        ("interpolation", (1, 2, 64, 64), (1, 1, 64, 64), r"it is \(N, H, W\) of the inputs, here \(1, 64, 64\)"),
        ("noise2noise", (1, 1, 64, 64), (1, 64, 64), "of an interpolation network only"),
    ],
)
def test_slices_of_another_shape_are_refused(
    tmp_path: Path, kind: RestorerKind, inputs: tuple[int, ...], fraction: tuple[int, ...] | None, said: str
) -> None:
    restorer = load_restorer(write_restorer(tmp_path, kind))
    with pytest.raises(BadInput, match=said):
        restorer.restore(slices(*inputs), None if fraction is None else slices(*fraction))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": [64, 60]}, r"patch: positive multiples of 8; nearest \[64, 64\]"),
        ({"patch": [0, 64]}, r"nearest \[8, 64\]"),
        ({"overlap": [64, 0]}, "less than the patch"),
        ({"options": {"widths": [4], "taps": 7}}, "options of interpolation: widths: .*at least 2"),
        ({"options": {"taps": 8}}, "an odd number, so that a kernel has a centre: 7 or 9"),
        ({"options": {"width": 8}}, "options of interpolation: width: "),
        ({"multiple": 4, "patch": [4, 4], "overlap": [0, 0]}, "multiple: the network needs multiples of 8"),
        ({"unsharp": {"radius": 0.5, "amount": 0.7}}, "unsharp: of noise2noise only"),
        ({"weights": "folder/tiny.safetensors"}, "weights"),
        ({"colour": "blue"}, "colour: a restorer has the fields of RestorerSpec"),
    ],
)
def test_a_specification_that_cannot_work_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_restorer_spec(write_restorer(tmp_path, **changes))


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = write_restorer(tmp_path)
    path.write_text(path.read_text().replace('"kind": "interpolation"', '"kind": "inpainting"'))
    with pytest.raises(BadInput, match=r"kind: .* 'interpolation' or 'noise2noise'"):
        load_restorer_spec(path)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(b"\x00 not json")
    with pytest.raises(BadInput, match="the file: a restorer has the fields"):
        load_restorer_spec(path)


def test_a_name_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_restorer(tmp_path)
    monkeypatch.setattr(restorer_spec, "_SHELF", Shelf(tmp_path, "restorer"))
    assert restorer_names() == ["tiny"]
    assert load_restorer_spec("tiny").name == "tiny"
    with pytest.raises(BadInput, match=r"restorer 'tinny'.*Did you mean tiny\? Shipped: tiny\."):
        load_restorer("tinny")
    with pytest.raises(BadInput, match=r"restorer '.*none\.json'"):
        load_restorer(tmp_path / "none.json")


def test_a_model_of_mitochondria_is_no_restorer_nor_the_other_way_round(tmp_path: Path) -> None:
    model = sorted(SHIPPED.glob("*.json"))[0]
    with pytest.raises(BadInput, match="this is a model that gives the probabilities of mitochondria"):
        load_restorer(model)
    with pytest.raises(BadInput, match="restorer 'mito-v1': a restorer is a shipped name"):
        load_restorer("mito-v1")
    with pytest.raises(BadInput, match="this is a restorer, which gives grey levels"):
        load_model(write_restorer(tmp_path))
    assert not set(restorer_names()) & {path.stem for path in SHIPPED.glob("*.json")}


def test_other_weights_than_those_of_the_specification_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the weights have the sha256 of the specification"):
        load_restorer(write_restorer(tmp_path, sha256=SHA))
    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(BadInput, match="there is no such file"):
        load_restorer(tmp_path / "tiny.json")


def test_weights_of_another_network_are_refused_and_the_layers_named(tmp_path: Path) -> None:
    content = to_bytes(network("noise2noise").state_dict())
    with pytest.raises(BadInput, match=r"the weights fit the architecture.* is missing; .*; and \d+ more"):
        load_restorer(write_restorer(tmp_path, "interpolation", content))


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="weights are a safetensors file"):
        load_restorer(write_restorer(tmp_path, content=b"PK\x03\x04 a pickle"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_specification_survives_json_with_every_default_filled_in(kind: RestorerKind) -> None:
    spec = RestorerSpec(
        name="made",
        kind=kind,
        multiple=32,
        voxel_size_nm=(50.0, 4.0, 4.0),
        weights="made.safetensors",
        sha256=SHA,
    )
    assert RestorerSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.channels == {"interpolation": 2, "noise2noise": 1}[kind]
    published = {"interpolation": {"widths": [32, 64, 128, 256, 512, 512], "taps": 51}, "noise2noise": {"width": 48}}
    assert spec.options == published[kind]


def test_reading_a_specification_needs_no_torch(tmp_path: Path) -> None:
    path = write_restorer(tmp_path)
    code = "import sys; from pipeline.model.restorer_spec import load_restorer_spec as load; load(sys.argv[1])"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", restorer_names())
def test_a_shipped_restorer_loads_is_small_and_has_a_card(name: str) -> None:
    restorer = load_restorer(name)
    assert restorer.spec.name == name
    assert (RESTORERS / f"{name}.md").is_file()
    assert (RESTORERS / restorer.spec.weights).stat().st_size <= 10_000_000
    size = restorer.spec.patch
    assert restorer.restore(slices(1, restorer.spec.channels, *size)).shape == (1, *size)
