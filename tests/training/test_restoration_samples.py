"""Samples and validation of restorers: the right slices at the right fraction, and figures by known images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_restoration import config, ramp, samples, write_texture

from pipeline.errors import BadInput
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume
from pipeline.training.prepare import main
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.samples import Samples, flipped
from pipeline.training.restoration.validation import cases, psnr
from pipeline.training.restoration.volumes import Stack, load_stack
from pipeline.training.sources import RawSource
from pipeline.training.task import read_task


def test_the_target_lies_between_its_neighbours_at_its_fraction_of_the_way() -> None:
    c = config("-", Path(), gaps=(1, 2, 3), batch=64)
    batch = Samples([ramp()], c).batch(0)
    assert batch.inputs.shape == (64, 2, 32, 32)
    assert batch.targets.shape == batch.fractions.shape == (64, 1, 32, 32)
    before, after = batch.inputs[:, :1], batch.inputs[:, 1:]
    between = before + batch.fractions * (after - before)
    assert torch.allclose(batch.targets, between, atol=1e-6)
    gaps = (after - before)[:, 0, 0, 0].mul(25.5).round().int()
    assert set(gaps.tolist()) == {-4, -3, -2, 2, 3, 4}, "gaps of one to three, either neighbour first"
    assert len(set(batch.fractions[:, 0, 0, 0].tolist())) > 4


def test_noise2noise_learns_a_slice_from_the_next_and_from_the_one_before() -> None:
    batch = Samples([ramp()], config("-", Path(), task="noise2noise", batch=32)).batch(3)
    assert batch.inputs.shape == batch.targets.shape == (32, 1, 32, 32)
    steps = (batch.targets - batch.inputs)[:, 0, 0, 0].mul(25.5).round().int()
    assert set(steps.tolist()) == {-1, 1}


def test_crops_are_decided_by_seed_and_step_alone(tmp_path: Path) -> None:
    stack = load_stack(RawSource(raw=write_texture(tmp_path / "a.npz")))
    first, second = (Samples([stack], config("-", Path())) for _ in range(2))
    first.batch(0)
    assert torch.equal(first.batch(7).inputs, second.batch(7).inputs)
    assert not torch.equal(first.batch(7).inputs, first.batch(8).inputs)
    other = Samples([stack], config("-", Path(), seed=1))
    assert not torch.equal(first.batch(7).inputs, other.batch(7).inputs)


def test_the_same_turn_is_given_to_all_slices_of_a_sample() -> None:
    frames = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    seen = set()
    for seed in range(60):
        turned, fraction = flipped(frames, 0.25, np.random.default_rng(seed))
        assert np.array_equal(turned[2] % 16, turned[0] % 16)
        assert fraction == (0.25 if turned[0, 0, 0] < 16 else 0.75)
        seen.add(turned.tobytes())
    assert len(seen) == 16, "two flips, a transposition, the exchange of the neighbours"


def test_weights_decide_how_often_a_volume_is_drawn_and_zero_is_never() -> None:
    dark, bright = (Stack(name, np.full((3, 32, 32), v, np.uint8), w) for name, v, w in (("a", 51, 0.0), ("b", 204, 2)))
    batch = Samples([dark, bright], config("-", Path(), batch=16)).batch(0)
    assert torch.allclose(batch.targets, torch.full_like(batch.targets, 0.8))


def test_padding_and_missing_slices_are_never_learnt_from() -> None:
    raw = np.full((8, 64, 64), 100, np.uint8)
    raw[3], raw[:, :, 40:] = 0, 0
    batch = Samples([Stack("torn", raw)], config("-", Path(), batch=32)).batch(0)
    shares = (torch.cat([batch.inputs, batch.targets], dim=1) == 0).float().mean(dim=(2, 3))
    assert shares.max() <= 0.5


def test_volumes_of_nothing_but_padding_are_refused() -> None:
    with pytest.raises(BadInput, match=r"they hold tissue.*1000 crops"):
        Samples([Stack("void", np.zeros((3, 32, 32), np.uint8))], config("-", Path())).batch(0)


def test_a_stack_is_read_from_any_address_in_its_range_of_slices(tmp_path: Path) -> None:
    raw = ramp(5, 32).raw
    ome_zarr.create(str(tmp_path / "em"), raw.shape, raw.shape, raw.shape, "uint8", (10.0, 10.0, 10.0))
    volume = open_volume(str(tmp_path / "em"))
    volume.write(volume.box, raw)
    stack = load_stack(RawSource(raw=str(tmp_path / "em"), z_range=(1, 4)))
    assert np.array_equal(stack.raw, raw[1:4])
    assert stack.name.endswith("/em z 1-3")


def test_prepared_volumes_give_the_same_crops(tmp_path: Path) -> None:
    c = config(write_texture(tmp_path / "a.npz"), tmp_path, validation=(RawSource(raw=str(tmp_path / "a.npz")),))
    c = c.model_copy(update={"volumes": (c.volumes[0].model_copy(update={"z_range": (1, 5), "weight": 2.0}),)})
    (tmp_path / "config.json").write_text(c.model_dump_json())
    assert main([str(tmp_path / "config.json"), str(tmp_path / "prepared")]) == 0
    stored = read_task(tmp_path / "prepared" / "config.json")
    assert isinstance(stored, RestorationConfig)
    assert torch.equal(samples(stored).batch(4).inputs, samples(c).batch(4).inputs)
    assert [one.weight for one in stored.volumes] == [2.0]
    assert np.array_equal(load_stack(stored.validation[0]).raw, load_stack(c.validation[0]).raw)


def test_an_npz_of_other_than_grey_levels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", raw=np.zeros((3, 32, 32), np.uint16))
    with pytest.raises(BadInput, match=r"uint16.*grey levels in an \.npz are uint8"):
        load_stack(RawSource(raw=str(tmp_path / "wide.npz")))


class Mean:
    """A restorer that needs no network."""

    def restore(self, inputs: np.ndarray, fraction: np.ndarray | None) -> np.ndarray:
        at = np.float32(0.5) if fraction is None else fraction
        return (1 - at) * inputs[:, 0] + at * inputs[:, -1]


def test_every_run_of_slices_as_wide_as_the_gap_is_a_case() -> None:
    raw = ramp(6).raw
    assert [len(list(cases(raw, 2, gap))) for gap in (1, 2, 3)] == [4, 3, 2]
    for case in cases(raw, 2, 3):
        mean, nearest = case.simple()
        assert np.array_equal(mean, case.truth)
        assert (case.truth.astype(int) - nearest)[:, 0, 0].tolist() == [10, 20, -10]
    assert [case.truth[0, 0, 0] for case in cases(raw, 1)] == [20, 30, 40, 50, 60]


def test_hidden_slices_are_made_patch_by_patch_at_their_fraction_and_never_seen() -> None:
    raw = np.random.default_rng(0).integers(1, 255, (4, 50, 70), dtype=np.uint8)
    (case,) = cases(raw, 2, 2)
    made = case.restored(Mean(), (32, 32), (8, 8), 16)
    assert np.abs(made.astype(int) - case.simple()[0]).max() <= 1
    assert psnr(made, case.simple()[0])[0] > 45
    single = next(cases(raw, 1))
    assert np.array_equal(single.restored(Mean(), (32, 32), (8, 8), 16), raw[:1])
    assert np.array_equal(single.truth, raw[1:2])


def test_psnr_is_that_of_its_definition() -> None:
    image = np.full((2, 8, 8), 100, np.uint8)
    other = image + np.array([0, 51], np.uint8)[:, None, None]
    assert psnr(image, other) == pytest.approx([100, 20 * np.log10(5)])


def test_padding_does_not_count_against_a_network() -> None:
    raw = np.random.default_rng(2).integers(1, 256, (3, 32, 32), dtype=np.uint8)
    raw[:, :, :16] = 0
    (case,) = cases(raw, 2)
    made = case.restored(Mean(), (16, 16), (4, 4), 4)
    assert not made[..., :16].any()
    assert psnr(made, case.truth) == pytest.approx(psnr(case.simple()[0], case.truth), abs=0.05)
