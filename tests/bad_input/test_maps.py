"""Maps that are no probabilities are refused before any work where samples show it, else their block fails by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Teramito
from tiny_run import ledger_lines, write_volume

SHAPE = (40, 32, 48)
BLOCKS = ["--set", "block.shape=[8,32,48]", "--set", "export.chunk=[16,16,16]", "--set", "instances.minimum_voxels=1"]
UNSAMPLED = 9  # a section of block 1


def _maps(folder: Path, dtype: str = "float32") -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    smooth = np.repeat(np.repeat(random.random((10, 8, 12)), 4, axis=0), 4, axis=1).repeat(4, axis=2)
    return {"semantic": smooth.astype(dtype), "boundary": (1 - smooth).astype(dtype)}


def _given(folder: Path, maps: dict[str, np.ndarray]) -> list[str]:
    stored = [write_volume(folder / name, values, chunks=(8, 16, 16)) for name, values in maps.items()]
    return ["instances", *stored, str(folder / "out"), *BLOCKS]


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["semantic", "boundary"])
def test_a_value_outside_0_to_1_in_the_samples_is_refused_before_any_work(
    name: str, value: float, tmp_path: Path, teramito: Teramito
) -> None:
    maps = _maps(tmp_path)
    maps[name][0, 5, 7] = value
    said = teramito(*_given(tmp_path, maps))
    said.refuses(f"{tmp_path / name} [0:4,0:32,0:48]", "must lie in 0..1 without NaN", "255 levels", "uint8 map")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
@pytest.mark.parametrize("name", ["semantic", "boundary"])
def test_a_value_outside_0_to_1_elsewhere_fails_its_block_and_the_others_go_on(
    name: str, value: float, tmp_path: Path, teramito: Teramito
) -> None:
    from pipeline.image.grey import sample_boxes
    from pipeline.store.volume import open_volume

    maps = _maps(tmp_path)
    good = maps[name][UNSAMPLED, 5, 7]
    maps[name][UNSAMPLED, 5, 7] = value
    given = _given(tmp_path, maps)
    assert not any(box.start[0] <= UNSAMPLED < box.stop[0] for box in sample_boxes(open_volume(given[1])))
    said = teramito(*given)
    said.refuses("stage label: 1 of 5 blocks failed; the others are kept", "block 1 [8:16,0:32,0:48]")
    said.refuses(f"{tmp_path / name} with values", "must lie in 0..1 without NaN")
    assert len([line for line in ledger_lines(tmp_path / "out", "label") if " ! " not in line]) == 4
    volume = open_volume(str(tmp_path / name))
    maps[name][UNSAMPLED, 5, 7] = good
    volume.write(volume.box, maps[name])
    assert teramito(*given).code == 0


def test_float_maps_give_what_their_quantised_maps_give(tmp_path: Path, teramito: Teramito) -> None:
    from pipeline.image.quantise import to_uint8
    from pipeline.store.volume import open_volume

    (tmp_path / "f").mkdir()
    (tmp_path / "u").mkdir()
    maps = _maps(tmp_path)
    found = []
    for folder, values in (("f", maps), ("u", {name: to_uint8(array) for name, array in maps.items()})):
        assert teramito(*_given(tmp_path / folder, values)).code == 0
        made = open_volume(str(tmp_path / folder / "out" / "arrays" / "segmentation"))
        found.append(made.read(made.box))
    assert found[0].max() > 2
    np.testing.assert_array_equal(found[0], found[1])


def test_a_torn_chunk_of_a_float_map_fails_its_block_also_where_the_samples_lie(
    tmp_path: Path, teramito: Teramito
) -> None:
    given = _given(tmp_path, _maps(tmp_path))
    chunk = tmp_path / "boundary" / "0" / "c" / "0" / "1" / "2"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    said = teramito(*given)
    said.refuses("stage label: 1 of 5 blocks failed", "block 0 [0:8,0:32,0:48]", "the stored voxels must be readable")


def test_maps_of_different_shapes_are_refused_with_the_crop_that_helps(tmp_path: Path, teramito: Teramito) -> None:
    maps = _maps(tmp_path)
    maps["boundary"] = maps["boundary"][:-1]
    given = _given(tmp_path, maps)
    teramito(*given).refuses("(40, 32, 48)", "(39, 32, 48)", "the same shape", "Crop one of them")
    assert not (tmp_path / "out").exists()
    given[1] += "[0:39,:,:]"
    assert teramito(*given).code == 0


@pytest.mark.parametrize("shape", ["[2048,2048,2048]", "[1,65536,65536]", "[4294967297,1,1]"])
def test_a_block_that_could_hold_too_many_fragments_is_refused_with_the_shape_to_use(
    shape: str, tmp_path: Path, teramito: Teramito
) -> None:
    said = teramito(*_given(tmp_path, _maps(tmp_path)), "--set", f"block.shape={shape}")
    said.refuses("block.shape=", "at most 2^31 voxels", "32 bits", "For example [48, 32, 48].")
    assert not (tmp_path / "out").exists()
