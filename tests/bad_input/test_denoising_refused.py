"""Denoising that cannot work is refused in one message before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Teramito
from tiny_restorer import FACTOR, SHAPE, denoise, write_tiny_restorer
from tiny_run import arguments, job_of, ledger_lines, phantom_values, settings, write_volume

from pipeline.run.config import parse_config
from pipeline.run.plan import make_plan

COMMANDS = ["plan", "run"]
COARSE = tuple(n // f for n, f in zip(SHAPE, FACTOR, strict=True))


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny interpolation network."""
    return write_tiny_restorer(tmp_path_factory.mktemp("restorer"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A phantom of 20 x 64 x 64 voxels of 10 nm."""
    return write_volume(tmp_path_factory.mktemp("raw") / "raw", phantom_values(SHAPE))


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Where the run would go; it must not exist after the test."""
    yield tmp_path / "run"
    assert not (tmp_path / "run").exists()


def mask_of(folder: Path, values: Any, size: tuple[float, float, float] | None = None) -> str:
    return write_volume(folder / "mask", np.asarray(values, np.uint8), size)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_volume_of_one_slice_has_no_neighbours(
    command: str, restorer: Path, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((1, 64, 64)))
    said = teramito(command, *arguments(where, out, tiny_model, denoise(restorer)))
    said.refuses("denoise auto of", "a volume of one slice", "restored from its neighbours", "there is none")
    said.refuses("Take a noise2noise model", "denoise=off")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mask_that_flags_every_slice_leaves_nothing_to_restore_from(
    command: str, raw: str, restorer: Path, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    mask = mask_of(tmp_path, np.ones(COARSE))
    said = teramito(command, *arguments(raw, out, tiny_model, denoise(restorer, mask)))
    said.refuses(mask, "in which every slice is flagged", "sound slices beside it", "nonzero is damaged, 0 is sound")


@pytest.mark.parametrize(("shape", "nearest"), [((19, 64, 64), "[20, 64, 64]"), ((20, 48, 16), "[20, 64, 16]")])
def test_a_mask_of_another_shape_names_the_nearest(
    shape: tuple[int, int, int],
    nearest: str,
    raw: str,
    restorer: Path,
    tiny_model: Path,
    tmp_path: Path,
    out: Path,
    teramito: Teramito,
) -> None:
    mask = mask_of(tmp_path, np.zeros(shape))
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(restorer, mask)))
    said.refuses(f"the damage mask {mask} of shape {list(shape)}", "ceil(length / f)")
    said.refuses(f"The nearest legal shape is {nearest}")


def test_a_mask_whose_voxel_size_contradicts_its_shape(
    raw: str, restorer: Path, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    mask = mask_of(tmp_path, np.zeros(COARSE), (10.0, 20.0, 20.0))
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(restorer, mask)))
    said.refuses("voxel size [1, 2, 2] times", "makes it [1, 4, 4] times", "Correct the mask's voxel size")


def test_a_mask_that_is_not_there(raw: str, restorer: Path, tiny_model: Path, out: Path, teramito: Teramito) -> None:
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(restorer, str(out.parent / "no.tif"))))
    said.refuses("no.tif", "the input must exist")


def test_a_mask_without_denoising(raw: str, restorer: Path, tiny_model: Path, out: Path, teramito: Teramito) -> None:
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(restorer, raw, mode="off")))
    said.refuses("denoise", "a mask belongs to mode auto")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("layers", "without"), [(["restored"], "[segmentation]"), (["raw", "replaced", "semantic"], "[raw,semantic]")]
)
def test_layers_of_denoising_without_denoising(
    layers: list[str], without: str, command: str, raw: str, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito(command, *arguments(raw, out, tiny_model, {"export.layers": layers}))
    said.refuses(f"export.layers=[{','.join(layers)}]", "restored and replaced are layers of denoising, which is off")
    said.refuses(f"Leave them out, export.layers={without}, or", "denoise=auto")


def test_of_the_default_layers_those_of_denoising_are_left_out_where_it_is_off(
    raw: str, tiny_model: Path, out: Path
) -> None:
    made = job_of({"input": raw, "output": str(out), "model": str(tiny_model)})
    layers = [stage.name for stage in made.steps[-1].stages if stage.name.endswith("mip0")]
    assert layers == [f"export-{name}-mip0" for name in ("raw", "semantic", "boundary", "segmentation")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_restorer_that_is_unknown(command: str, raw: str, tiny_model: Path, out: Path, teramito: Teramito) -> None:
    said = teramito(command, *arguments(raw, out, tiny_model, denoise(Path("interpolation-v0"))))
    said.refuses("restorer 'interpolation-v0'", "a shipped name or the path", "Shipped: ")


def test_a_model_of_mitochondria_and_a_restorer_are_not_taken_for_each_other(
    raw: str, restorer: Path, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(tiny_model)))
    said.refuses(str(tiny_model), "a restorer gives the grey levels", "the probabilities of mitochondria")
    said = teramito("run", *arguments(raw, out, restorer))
    said.refuses(str(restorer), "this is a restorer, which gives grey levels", "denoise.model=PATH.json")


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_of_a_restorer_that_were_altered_or_are_gone(
    command: str, raw: str, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    given = arguments(raw, out, tiny_model, denoise(write_tiny_restorer(tmp_path / "restorer")))
    weights = tmp_path / "restorer" / "restorer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    teramito(command, *given).refuses("restorer.safetensors: sha256", "have the sha256 of the specification")
    weights.unlink()
    teramito(command, *given).refuses("restorer.safetensors", "the weights lie beside the specification")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [("max_gap", 0, "greater than or equal to 1"), ("sensitivity", 0, "greater than 0"), ("feather", 5, "feather_nm")],
)
def test_a_setting_of_denoising_that_cannot_be(
    name: str, value: int, rule: str, raw: str, restorer: Path, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito("run", *arguments(raw, out, tiny_model, denoise(restorer, **{name: value})))
    said.refuses(f"denoise.{name}", rule)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_rim_wider_than_a_patch(
    command: str, raw: str, restorer: Path, tiny_model: Path, out: Path, teramito: Teramito
) -> None:
    said = teramito(command, *arguments(raw, out, tiny_model, denoise(restorer, feather_nm=320.5)))
    said.refuses("denoise.feather_nm=320.5", "at most as wide as a patch of the restorer, 32 x 32 pixels")
    said.refuses("every block reads as far beyond its own", "The widest legal one is 320.")
    legal = settings(raw, out, tiny_model, denoise(restorer, feather_nm=320))
    assert make_plan(parse_config(legal)).denoising is not None


def test_a_mask_of_another_crop_than_the_volume(
    raw: str, restorer: Path, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    mask = mask_of(tmp_path, np.eye(20, 64)[:, :, None].repeat(64, 2), (10.0, 10.0, 10.0))
    given = arguments(f"{raw}[4:20,:,:]", out, tiny_model, denoise(restorer, f"{mask}[2:18,:,:]"))
    said = teramito("run", *given)
    said.refuses(f"the damage mask {mask}[2:18,:,:] at 20,0,0 nm", "for a volume at 40,0,0 nm", "in the same place")
    said.refuses("Crop both alike", "correct the mask's offset")


def test_nan_in_the_samples_of_a_float_volume(
    restorer: Path, tiny_model: Path, tmp_path: Path, out: Path, teramito: Teramito
) -> None:
    values = phantom_values(SHAPE).astype(np.float32)
    values[0, 3, 3] = np.nan
    where = write_volume(tmp_path / "raw", values)
    said = teramito("run", *arguments(where, out, tiny_model, denoise(restorer)))
    said.refuses("1 voxels in box [0:4,0:64,0:64] are NaN or infinite", "Replace them with 0")


@pytest.mark.parametrize("flagged", [3, 20])
def test_nan_elsewhere_fails_the_blocks_that_read_it_by_name(
    flagged: int, restorer: Path, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    values = phantom_values((40, 32, 32)).astype(np.float32)
    values[4, 20, 20] = np.nan  # the samples for the grey levels leave slice 4 out
    damage = np.zeros((40, 32, 32))
    damage[flagged] = 1
    given = denoise(restorer, mask_of(tmp_path, damage)) | {"block.shape": [4, 32, 32]}
    where = write_volume(tmp_path / "raw", values)
    said = teramito("run", *arguments(where, tmp_path / "run", tiny_model, given))
    said.refuses("stage restore", "1 voxels in box", "NaN or infinite", "Replace them with 0")
    failed = [line.split(":")[0] for line in ledger_lines(tmp_path / "run", "restore") if " ! " in line]
    # Slice 3 is restored from slice 4, of the next block.
    assert failed == [f"{n} ! BadInput" for n in ((0, 1) if flagged == 3 else (1,))]
    assert not (tmp_path / "run" / "report.json").exists()
