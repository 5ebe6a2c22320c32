"""What cannot work is refused in one message before anything is written: what was given, the rule, why, what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from command_line import Teramito
from tiny_run import arguments, phantom_values, write_tiny_model, write_volume

COMMANDS = ["plan", "run"]


@pytest.fixture(autouse=True)
def nothing_written(tmp_path: Path) -> Any:
    """After every test here the output, which is always OUT/run, does not exist."""
    (tmp_path / "out").mkdir()
    yield
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the run would go."""
    return tmp_path / "out" / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_where_nothing_is(command: str, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    missing = str(tmp_path / "no" / "volume.zarr")
    said = teramito(command, *arguments(missing, out, tiny_model))
    said.refuses(missing, "the input must exist", "nothing is there", "does not exist either")


@pytest.mark.parametrize("name", ["v.tif", "v.h5:raw", "v.nrrd", "v.zarr"])
def test_a_file_of_garbage(name: str, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    (tmp_path / name.split(":")[0]).write_bytes(b"\x00garbage\xff" * 100)
    said = teramito("run", *arguments(str(tmp_path / name), out, tiny_model))
    said.refuses(name, "readable" if name != "v.nrrd" and name != "v.zarr" else "no volume is recognised")


def test_an_image_of_two_axes(tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    zarr.create_array(tmp_path / "v.zarr", shape=(96, 96), chunks=(32, 32), dtype="uint8")
    said = teramito("run", *arguments(str(tmp_path / "v.zarr"), out, tiny_model))
    said.refuses("three axes", "(96, 96)")


@pytest.mark.parametrize("dtype", ["int8", "uint32", "uint64", "int64", "bool", "complex64"])
def test_a_dtype_that_is_no_image(dtype: str, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    array = zarr.create_array(tmp_path / "v.zarr", shape=(8, 32, 32), chunks=(8, 32, 32), dtype=dtype)
    array[...] = np.ones((8, 32, 32), dtype)
    given = [*arguments(str(tmp_path / "v.zarr"), out, tiny_model), "--voxel-size-nm", "10,10,10"]
    said = teramito("run", *given)
    said.refuses(f"of dtype {dtype}", "an EM volume is uint8, uint16", "the network would see noise", "raw image")


def test_an_empty_extent(tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    zarr.create_array(tmp_path / "v.zarr", shape=(0, 96, 96), chunks=(8, 32, 32), dtype="uint8")
    said = teramito("run", *arguments(str(tmp_path / "v.zarr"), out, tiny_model))
    said.refuses("at least one voxel per axis", "(0, 96, 96)")


def test_a_voxel_size_that_nobody_states(tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((8, 32, 32)), size=None)
    said = teramito("run", *arguments(where, out, tiny_model))
    said.refuses("the voxel size must be known", "does not state one", "--voxel-size-nm 30,8,8")


def test_a_voxel_size_that_contradicts_the_file(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(phantom_path, out, tiny_model), "--voxel-size-nm", "10,10,8")
    said.refuses("10x10x8 nm", "contradicts the file, which states 10x10x10 nm", "Leave the voxel size out")


@pytest.mark.parametrize("size", ["10,10", "a,b,c", "0,10,10", "-1,10,10", "inf,10,10", "nan,10,10"])
def test_a_voxel_size_that_is_none(
    size: str, phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    teramito("run", *arguments(phantom_path, out, tiny_model), f"--voxel-size-nm={size}").refuses("voxel")


def test_a_patch_larger_than_the_volume_names_the_largest_legal_one(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(phantom_path, out, tiny_model, {"predict.patch": [64, 128, 96]}))
    said.refuses("predict.patch=[64, 128, 96]", "must fit into the volume [40, 96, 96]", "[40, 96, 96].")


def test_a_patch_that_is_no_multiple_of_16_names_the_nearest(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(phantom_path, out, tiny_model, {"predict.patch": [8, 40, 50]}))
    said.refuses("multiples of 16", "four times", "The nearest legal patch is [8, 32, 48].")


def test_an_overlap_as_large_as_the_patch_is_refused_together_with_the_patch(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    chosen = {"predict.patch": [8, 40, 32], "predict.overlap": [2, 4, 32]}
    said = teramito("run", *arguments(phantom_path, out, tiny_model, chosen))
    said.refuses("predict.patch=[8, 40, 32]", "predict.overlap=[2, 4, 32]", "largest legal overlap is [2, 4, 31]")


@pytest.mark.parametrize("shape", [(8, 15, 32), (8, 32, 15)])
def test_a_volume_smaller_than_the_smallest_patch(
    shape: tuple[int, int, int], tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    where = write_volume(tmp_path / "raw", np.full(shape, 90, np.uint8))
    said = teramito("run", *arguments(where, out, tiny_model))
    said.refuses("x".join(map(str, shape)), "at least 16 voxels in y and x", "four times", "Give a larger volume")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_or_infinity_in_the_samples_of_a_float_volume(
    bad: float, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    values = phantom_values((16, 32, 32)).astype(np.float32)
    values[0, 3, 3] = bad
    said = teramito("run", *arguments(write_volume(tmp_path / "raw", values), out, tiny_model))
    said.refuses("raw", "1 voxels in box [0:4,0:32,0:32] are NaN or infinite", "Replace them with 0")


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_of_another_hash(
    command: str, phantom_path: str, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    model = write_tiny_model(tmp_path / "model")
    weights = tmp_path / "model" / "tiny.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    said = teramito(command, *arguments(phantom_path, out, model))
    said.refuses("tiny.safetensors: sha256", "have the sha256 of the specification", "silently", "Fetch")


def test_weights_that_are_gone(phantom_path: str, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    model = write_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "tiny.safetensors").unlink()
    teramito("run", *arguments(phantom_path, out, model)).refuses("the weights lie beside the specification")


def test_a_model_that_is_unknown(phantom_path: str, out: Path, teramito: Teramito) -> None:
    said = teramito("run", *arguments(phantom_path, out, Path("mito-stater")))
    said.refuses("model 'mito-stater'", "a shipped name", "Shipped: ")


def test_a_setting_that_is_unknown_names_the_nearest(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    given = arguments(phantom_path, out, tiny_model)
    said = teramito("run", *given, "--set", "instances.conectivity=26", "--set", "blok.shape=[8,8,8]")
    said.refuses("instances.conectivity: there is no such setting. Did you mean connectivity?")
    said.refuses("blok: there is no such setting. Did you mean block?")


def test_an_unknown_key_in_a_file_names_the_nearest(
    phantom_path: str, tmp_path: Path, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"input: {phantom_path}\npredict:\n  pach: [8, 32, 32]\n")
    said = teramito("run", "--config", str(file), "--output", str(out), "--model", str(tiny_model))
    said.refuses("predict.pach: there is no such setting. Did you mean patch?")


@pytest.mark.parametrize("content", ["input: [1,", "- a\n- b\n", "just text", None])
def test_a_file_that_is_no_configuration(content: str | None, tmp_path: Path, out: Path, teramito: Teramito) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_text(content)
    teramito("run", "--config", str(file), "--output", str(out)).refuses("--config", "config.yaml")


@pytest.mark.parametrize(
    "setting", ["block.shape", "=3", "block.shape=[1,2", "block.shape=[0,64,64]", "a..b=1", "block=7"]
)
def test_a_setting_that_is_malformed(
    setting: str, phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(phantom_path, out, tiny_model), "--set", setting)
    said.refuses(setting.split("=")[0].split(".")[0])


def test_nothing_given_names_what_must_be(teramito: Teramito) -> None:
    said = teramito("run")
    said.refuses("input: it must be given. Path or URL", "output: it must be given. Directory of the run")


@pytest.mark.parametrize("value", ["[0,64,64]", "[64,64]", "[64,64,-1]", "64", "[1.5,64,64]", "[2048,2048,2048]"])
def test_a_block_shape_that_cannot_be(
    value: str, phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(phantom_path, out, tiny_model), "--set", f"block.shape={value}")
    said.refuses("block.shape")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("shape", "rule"),
    [("[2048,2048,2048]", "at most 2^31 voxels"), ("[1,1,4294967296]", "at most 2^31 voxels")],
)
def test_a_block_whose_counts_need_more_than_32_bits_is_refused_with_the_shape_to_use(
    command: str, shape: str, rule: str, phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito(command, *arguments(phantom_path, out, tiny_model), "--set", f"block.shape={shape}")
    said.refuses(f"block.shape={shape.replace(',', ', ')}", rule, "in 32 bits", "For example [48, 96, 96].")


def test_a_remote_output(phantom_path: str, tiny_model: Path, teramito: Teramito) -> None:
    given = arguments(phantom_path, Path("x"), tiny_model)
    given[given.index("--output") + 1] = "s3://bucket/run"
    said = teramito("run", *given)
    said.refuses("s3://bucket/run", "a local or network-mounted path", "append-only", "teramito convert")


@pytest.mark.parametrize("crop", ["[0:99,:,:]", "[5:5,:,:]", "[1,2]"])
def test_a_crop_that_is_not_in_the_volume(
    crop: str, phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    teramito("run", *arguments(phantom_path + crop, out, tiny_model)).refuses("crop")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_is_too_small_is_found_out_before(
    command: str,
    phantom_path: str,
    tiny_model: Path,
    out: Path,
    teramito: Teramito,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    said = teramito(command, *arguments(phantom_path, out, tiny_model))
    said.refuses("the disk must hold the run", "half-way", "Free space")


@pytest.mark.parametrize("command", ["status", "verify"])
@pytest.mark.parametrize("exists", [True, False])
def test_status_and_verify_of_what_is_no_run(command: str, exists: bool, tmp_path: Path, teramito: Teramito) -> None:
    if exists:
        (tmp_path / "folder").mkdir()
    said = teramito(command, str(tmp_path / "folder"))
    said.refuses("this is no run directory", "holds no run.json", "--output of a run")
    assert not exists or list((tmp_path / "folder").iterdir()) == []


def test_maps_of_different_shapes_dtypes_or_without_a_voxel_size(tmp_path: Path, out: Path, teramito: Teramito) -> None:
    good = write_volume(tmp_path / "good", np.zeros((8, 32, 32), np.uint8))
    small = write_volume(tmp_path / "small", np.zeros((8, 32, 16), np.uint8))
    labels = write_volume(tmp_path / "labels", np.zeros((8, 32, 32), np.uint16))
    bare = write_volume(tmp_path / "bare", np.zeros((8, 32, 32), np.uint8), size=None)
    teramito("instances", good, small, str(out)).refuses("the same shape", "Crop one")
    teramito("instances", good, labels, str(out)).refuses("of dtype uint16", "uint8 (0..255) or float (0..1)")
    teramito("instances", bare, good, str(out)).refuses("the voxel size must be known")


def test_plan_of_a_good_configuration_writes_nothing(
    phantom_path: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("plan", *arguments(phantom_path, out, tiny_model), "--json")
    assert said.code == 0, said.err
    facts = json.loads(said.out)
    assert facts["extent"] == [40, 96, 96]
    assert facts["patch"] == [8, 32, 32]


@pytest.mark.parametrize(
    ("size", "settings", "nearest"), [(20.0, {}, "mip 0"), (5.0, {"predict.scale": [1, 1, 1]}, "mip 1")]
)
def test_a_model_of_another_voxel_size_is_a_warning_that_names_the_nearest_mip(
    size: float,
    settings: dict[str, Any],
    nearest: str,
    tiny_model: Path,
    tmp_path: Path,
    out: Path,
    teramito: Teramito,
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((8, 32, 32)), size=(size, size, size))
    said = teramito("run", *arguments(where, out, tiny_model, settings))
    assert said.code == 0, said.err
    assert "warning: the network sees voxels of" in said.err
    assert "more than 1.5 times" in said.err
    assert nearest in said.err
    shutil.rmtree(out)
