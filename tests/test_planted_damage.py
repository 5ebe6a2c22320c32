"""Planted damage: the same bits in every box, of every kind, and its truth tells where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.phantom import Phantom, write_phantom
from pipeline.phantom.damage import KINDS, Damage, plant
from pipeline.store.volume import open_volume

SIZE = (40.0, 10.0, 10.0)
SHAPE = (40, 150, 170)
CLEAN = np.random.default_rng(0).integers(60, 200, SHAPE, np.uint8)
DAMAGE = Damage(SHAPE, SIZE, seed=3, spacing=4)


def of_clean(box: Box) -> NDArray[np.uint8]:
    assert Box.of_shape(SHAPE).contains(box)
    return CLEAN[box.slices()]


def damaged_slices(truth: NDArray[np.uint8]) -> list[int]:
    return np.flatnonzero(truth.any(axis=(1, 2))).tolist()


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in SHAPE]
    stop = [draw(st.integers(a + 1, n)) for a, n in zip(start, SHAPE, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@settings(deadline=None, max_examples=25)
@given(box=boxes())
def test_any_box_is_the_crop_of_the_whole_bit_by_bit(box: Box) -> None:
    whole, truth = plant(CLEAN, SIZE, seed=3, spacing=4)
    here, told = DAMAGE.planted(of_clean(box), box, of_clean)
    assert np.array_equal(here, whole[box.slices()])
    assert np.array_equal(told, truth[box.slices()])


def test_every_kind_is_planted_as_often_as_the_others() -> None:
    kinds = {(event.first, event.kind) for z in range(400) if (event := Damage((400, 9, 9), SIZE).event(z))}
    assert len(kinds) == 400 // 8
    assert {kind: sum(k == kind for _, k in kinds) for kind in KINDS} == dict.fromkeys(KINDS, 10)


def test_most_damaged_slices_are_alone_and_two_sound_ones_follow_any_run() -> None:
    damaged = [Damage((10**6, 9, 9), SIZE, seed=1).event(z) is not None for z in range(8000)]
    runs = np.diff(np.flatnonzero(np.diff([0, *damaged, 0])))
    lengths, sound = runs[::2], runs[1::2]
    assert set(lengths) == {1, 2, 3}
    assert 0.7 < (lengths == 1).mean() < 0.8
    assert sound.min() == 2
    assert damaged[0] or any(Damage((9, 9, 9), SIZE, seed=seed).event(0) for seed in range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_tells_the_kind_and_all_that_is_changed_much(kind: str) -> None:
    damaged, truth = plant(CLEAN, SIZE, kinds=(kind,), seed=5)
    assert set(np.unique(truth)) == {0, 1 + KINDS.index(kind)}
    sound = np.setdiff1d(np.arange(SHAPE[0]), damaged_slices(truth))
    assert np.array_equal(damaged[sound], CLEAN[sound])
    changed = np.abs(damaged.astype(int) - CLEAN)
    assert changed[truth > 0].mean() > 15
    assert (changed[truth == 0] > 2).mean() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_damage_is_larger_or_deeper(kind: str) -> None:
    harm = []
    for strength in (0.5, 1.0, 2.0):
        damaged, _ = plant(CLEAN, SIZE, kinds=(kind,), strength=strength, seed=5)
        harm.append(np.abs(damaged.astype(int) - CLEAN).mean())
    assert harm[0] < harm[1] < harm[2]


def test_a_missing_slice_is_empty_or_white_and_a_blurred_one_smooth() -> None:
    missing, truth = plant(CLEAN, SIZE, kinds=("missing",), strength=4.0)
    assert all(len(np.unique(missing[z][truth[z] > 0])) == 1 for z in damaged_slices(truth))
    blurred, truth = plant(CLEAN, SIZE, kinds=("blur",), strength=4.0)
    assert blurred[truth > 0].std() < 0.5 * CLEAN.std()
    assert abs(float(blurred[truth > 0].mean()) - CLEAN.mean()) < 2


def test_contrast_leaves_what_was_never_imaged_empty_and_empties_nothing() -> None:
    raw = CLEAN.copy()
    raw[:, :50] = 0
    damaged, truth = plant(raw, SIZE, kinds=("contrast",), strength=4.0)
    assert truth.any()
    assert np.array_equal(damaged == 0, raw == 0)


def test_another_seed_plants_elsewhere() -> None:
    assert not np.array_equal(plant(CLEAN, SIZE, seed=1)[1], plant(CLEAN, SIZE, seed=2)[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strength": 0.0}, "strength 0.0: it must be a number from 0.1 to 4"),
        ({"strength": float("nan")}, "strength nan"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("mould",)}, "kinds mould: they must be some of precipitate, fold"),
        ({"spacing": 3}, "spacing 3: there must be at least 4 slices"),
    ],
)
def test_damage_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Damage(SHAPE, SIZE, **changed)


def test_a_damaged_phantom_is_written_with_its_clean_image_and_its_truth(tmp_path: Path) -> None:
    phantom = Phantom((70, 130, 65), seed=1)
    damage = Damage(phantom.shape, phantom.voxel_size_nm, seed=1)
    write_phantom(str(tmp_path), phantom, (64, 64, 64), damage=damage)
    raw, clean, truth = (open_volume(f"{tmp_path}/{name}") for name in ("raw", "clean", "damage"))
    image = phantom.raw(phantom.box)
    expected = plant(image, phantom.voxel_size_nm, seed=1)
    assert np.array_equal(clean.read(clean.box), image)
    assert np.array_equal(raw.read(raw.box), expected[0])
    assert np.array_equal(truth.read(truth.box), expected[1])


def test_the_command_damages_a_phantom_where_it_is_asked_to(tmp_path: Path) -> None:
    command = ["phantom", str(tmp_path / "p"), "--shape", "16,64,64"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert not (tmp_path / "p" / "clean").exists()
    done = CliRunner().invoke(app, [*command, "--damage", "2"])
    assert done.exit_code == 0 and "damage its kind at every voxel" in done.output
    truth = open_volume(str(tmp_path / "p" / "damage"))
    assert truth.read(truth.box).any()
