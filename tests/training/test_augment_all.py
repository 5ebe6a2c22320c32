from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from pipeline import training
from pipeline.errors import BadInput
from pipeline.training.augment import AUGMENTATIONS, Augmentation, augmented, pictures, smoothed, window

ELEVEN = [
    *("rotate", "rescale", "flip", "elastic", "grayscale", "missing_parts"),
    *("missing_section", "misalignment", "motion_blur", "cut_blur", "cut_noise"),
]
OURS = ["scale_jitter", "slice_brightness", "noise", "blur", "bad_slice"]
GREY_ONLY = ["grayscale", "missing_parts", "motion_blur", "cut_blur", "cut_noise", *OURS[1:]]
MOVING = sorted(set(AUGMENTATIONS) - set(GREY_ONLY))


def sample(shape: tuple[int, int, int] = (6, 40, 40), device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Random blocks; the grey level is the id over 8, plus a small different texture in each slice."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 6, (shape[0], shape[1] // 8 + 1, shape[2] // 8 + 1), generator=random, dtype=torch.int32)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, : shape[1], : shape[2]].contiguous()
    raw = labels / 8 + 0.01 * torch.rand(shape, generator=random)
    return raw.to(device), labels.to(device)


def only(name: str, **changes: float) -> Augmentation:
    """One augmentation in its published form (ours: as recommended), always; nothing else."""
    base = getattr(Augmentation.published() if name in ELEVEN else Augmentation(), name)
    return Augmentation.only(**{name: base.model_copy(update={"chance": 1.0, **changes})})


def applied(name: str, seed: int, shape: tuple[int, int, int] = (6, 40, 40), **changes: float) -> tuple[Tensor, Tensor]:
    return AUGMENTATIONS[name](*sample(shape), np.random.default_rng(seed), only(name, **changes))


def parts(settings: Augmentation) -> Iterator[tuple[str, BaseModel]]:
    yield from ((name, part) for name, part in settings if isinstance(part, BaseModel))


def test_the_table_holds_the_eleven_of_the_reference_and_ours() -> None:
    assert list(AUGMENTATIONS) == ELEVEN + OURS
    assert [name for name, _ in parts(Augmentation())] == ELEVEN + OURS


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_and_type_stay_and_what_came_in_is_untouched(name: str) -> None:
    for shape in ((6, 40, 40), (4, 24, 33)):
        raw, labels = sample(shape)
        before = raw.clone(), labels.clone()
        for seed in range(4):
            grey, ids = AUGMENTATIONS[name](raw, labels, np.random.default_rng(seed), only(name))
            assert grey.shape == ids.shape == shape
            assert grey.dtype == torch.float32 and ids.dtype == torch.int32
            grey.add_(0.0 if grey is raw else 1.0)
        assert torch.equal(raw, before[0]) and torch.equal(labels, before[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_it_changes_the_crop_and_the_generator_alone_decides_how(name: str) -> None:
    first, again, other = applied(name, 3), applied(name, 3), [applied(name, seed)[0] for seed in range(4, 10)]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert name == "blur" or any(not torch.equal(first[0], raw) for raw in other)  # blur has one strength
    assert any(not torch.equal(sample()[0], raw) for raw in other)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_chance_of_zero_is_the_identity(name: str) -> None:
    raw, labels = sample()
    grey, ids = AUGMENTATIONS[name](raw, labels, np.random.default_rng(0), only(name, chance=0.0))
    assert (grey is raw and ids is labels) or (torch.equal(grey, raw) and torch.equal(ids, labels))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_chance_is_the_share_of_crops_that_change(name: str) -> None:
    raw, labels = sample((4, 16, 16))
    random, settings = np.random.default_rng(0), only(name, chance=0.5)
    same = sum(torch.equal(AUGMENTATIONS[name](raw, labels, random, settings)[0], raw) for _ in range(100))
    assert 30 <= same <= 75


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_works_on_very_few_slices(name: str, depth: int) -> None:
    for seed in range(8):
        raw, labels = applied(name, seed, (depth, 24, 24))
        assert raw.shape == labels.shape == (depth, 24, 24)
        assert raw.isfinite().all()


@pytest.mark.parametrize("name", MOVING)
def test_grey_levels_and_labels_move_together(name: str) -> None:
    labels = sample()[1]
    flat = (labels > 2).float()  # bilinear interpolation keeps 0 and 1 away from edges
    for seed in range(6):
        grey, ids = AUGMENTATIONS[name](flat, labels, np.random.default_rng(seed), only(name))
        agree = ((grey > 0.5) == (ids > 2)).float().mean()
        assert agree > 0.985, (name, seed)
        assert set(ids.unique().tolist()) <= set(range(6))


@pytest.mark.parametrize("name", GREY_ONLY)
def test_labels_stay_where_grey_levels_alone_change(name: str) -> None:
    labels = sample()[1]
    assert all(torch.equal(applied(name, seed)[1], labels) for seed in range(6))


@pytest.mark.parametrize("name", MOVING)
def test_ids_beyond_float32_are_kept_exactly(name: str) -> None:
    raw, labels = sample()
    large = torch.where(labels > 0, labels.long() + 2**40, 0)
    ids = AUGMENTATIONS[name](raw, large, np.random.default_rng(2), only(name))[1]
    assert set(ids.unique().tolist()) <= set(large.unique().tolist())
    assert torch.equal(ids.clamp(min=2**40) - 2**40, applied(name, 2)[1].long())


@pytest.mark.parametrize("settings", [Augmentation(), Augmentation.published(), Augmentation.none()])
@pytest.mark.parametrize("crop", [(4, 32, 32), (1, 16, 16), (2, 16, 24)])
def test_augmented_gives_exactly_the_crop_and_is_decided_by_the_generator(
    settings: Augmentation, crop: tuple[int, int, int]
) -> None:
    raw, labels = sample(window(crop, settings))
    before = raw.clone(), labels.clone()
    for seed in range(8):
        grey, ids = augmented(raw, labels, crop, np.random.default_rng(seed), settings)
        again = augmented(raw, labels, crop, np.random.default_rng(seed), settings)
        assert grey.shape == ids.shape == crop
        assert grey.is_contiguous() and ids.is_contiguous() and grey.isfinite().all()
        assert torch.equal(grey, again[0]) and torch.equal(ids, again[1])
    assert torch.equal(raw, before[0]) and torch.equal(labels, before[1])


def test_no_augmentation_is_the_central_crop() -> None:
    raw, labels = sample((7, 30, 41))
    grey, ids = augmented(raw, labels, (3, 16, 16), np.random.default_rng(0), Augmentation.none())
    assert torch.equal(grey, raw[2:5, 7:23, 12:28])
    assert torch.equal(ids, labels[2:5, 7:23, 12:28])


def test_the_sample_has_the_published_size() -> None:
    assert window((32, 256, 256), Augmentation.published()) == (34, 505, 505)
    assert window((32, 256, 256), Augmentation.none()) == (32, 256, 256)
    assert window((12, 100, 100), only("rotate")) == (12, 142, 142)
    assert window((12, 100, 100), only("rescale")) == (12, 125, 125)
    assert window((12, 100, 100), only("elastic")) == (12, 134, 134)
    assert window((12, 100, 100), only("misalignment")) == (12, 116, 116)
    assert window((12, 100, 100), only("missing_section")) == (14, 100, 100)
    assert window((12, 100, 100), only("scale_jitter")) == (12, 143, 143)


@pytest.mark.parametrize("settings", [Augmentation(), Augmentation.published()])
@pytest.mark.parametrize("crop", [(4, 48, 48), (3, 32, 48)])
def test_nothing_beyond_the_sample_is_invented(settings: Augmentation, crop: tuple[int, int, int]) -> None:
    """The sample is 5 inside and 9 in its outermost voxels: a result with a 9 looked at or beyond the border."""
    size = window(crop, settings)
    labels = torch.full(size, 5, dtype=torch.int32)
    for axis in (1, 2):
        labels.narrow(axis, 0, 1).fill_(9)
        labels.narrow(axis, size[axis] - 1, 1).fill_(9)
    for seed in range(150):
        ids = augmented(labels.float(), labels, crop, np.random.default_rng(seed), settings)[1]
        assert 9 not in ids


def test_the_combined_resampling_equals_one_after_the_other() -> None:
    """Smooth grey levels: interpolating once and several times then agree."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    raw = (0.5 + 0.25 * torch.sin(y / 9) + 0.25 * torch.cos(x / 7))[None].contiguous()
    labels = torch.ones(1, 96, 96, dtype=torch.int32)
    settings = Augmentation.only(
        rotate=only("rotate").rotate, rescale=only("rescale").rescale, scale_jitter=only("scale_jitter").scale_jitter
    )
    together = augmented(raw, labels, (1, 32, 32), np.random.default_rng(5), settings)[0]
    random = np.random.default_rng(5)
    angle, zooms = (random.random(), random.uniform(0, 2 * np.pi))[1], (random.random(), random.uniform(0.8, 1.2, 2))[1]
    zooms = zooms * np.exp((random.random(), random.uniform(np.log(0.7), np.log(1.4)))[1])
    steps = np.arange(32) - 15.5
    source_y = (np.cos(angle) * steps[:, None] - np.sin(angle) * steps[None]) / zooms[0] + 47.5
    source_x = (np.sin(angle) * steps[:, None] + np.cos(angle) * steps[None]) / zooms[1] + 47.5
    exact = 0.5 + 0.25 * np.sin(source_y / 9) + 0.25 * np.cos(source_x / 7)
    assert np.abs(together[0].numpy() - exact).max() < 0.01


def test_smoothing_rounds_corners_keeps_straight_outlines_and_removes_specks() -> None:
    labels = torch.zeros(3, 60, 60, dtype=torch.int32)
    labels[:2, 10:50, 10:50] = 4
    labels[1, 3, 3] = 7
    result = smoothed(labels)
    assert result[0, 30].tolist() == labels[0, 30].tolist()
    assert result[0, 10, 10] == 0 and labels[0, 10, 10] == 4
    assert result[1, 3, 3] == 0
    assert not result[2].any()
    assert torch.equal(result[0], result[0].T)


def test_smoothing_equals_the_rule_written_out() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = sample((2, 40, 40))[1]
    cross = ndimage.generate_binary_structure(2, 1)
    expected = np.zeros(labels.shape, np.int32)
    for z, label in np.ndindex(2, 6):
        values = (labels[z].numpy() == label).astype(np.float64)
        for _ in range(2):
            values = ndimage.gaussian_filter(ndimage.grey_dilation(values, footprint=cross), 2.0, mode="nearest")
            values = (ndimage.grey_dilation(values, footprint=cross) > 0.8).astype(np.float64)
        if label:
            expected[z][values > 0] = label
    assert np.array_equal(smoothed(labels).numpy(), expected)


def test_smooth_labels_is_a_setting() -> None:
    raw, labels = sample((2, 40, 40))
    settings = Augmentation.none().model_copy(update={"smooth_labels": True})
    assert torch.equal(augmented(raw, labels, (2, 40, 40), np.random.default_rng(0), settings)[1], smoothed(labels))


def test_settings_survive_json_and_refuse_what_they_do_not_know() -> None:
    for settings in (Augmentation(), Augmentation.published(), Augmentation.none()):
        assert Augmentation.model_validate_json(settings.model_dump_json()) == settings
    read = Augmentation.model_validate_json(json.dumps({"rescale": {"chance": 0.2, "factors": [0.5, 2.0]}}))
    assert read.rescale.factors == (0.5, 2.0) and read.rotate == Augmentation().rotate
    for wrong in (
        {"turn": {}},
        {"rotate": {"angle": 3}},
        {"rotate": {"chance": 1.5}},
        {"rescale": {"factors": [2, 1]}},
    ):
        with pytest.raises(ValidationError):
            Augmentation.model_validate_json(json.dumps(wrong))


def test_a_configuration_may_name_a_set_of_augmentations() -> None:
    class Config(BaseModel):
        augmentation: Augmentation

    for name, expected in (
        ("published", Augmentation.published()),
        ("none", Augmentation.none()),
        ("default", Augmentation()),
    ):
        assert Config.model_validate_json(json.dumps({"augmentation": name})).augmentation == expected
        assert Config.model_validate({"augmentation": name}).augmentation == expected
    with pytest.raises(ValidationError, match="heavy"):
        Config.model_validate_json('{"augmentation": "heavy"}')


def test_each_augmentation_has_its_picture_and_is_explained() -> None:
    folder = Path(training.__file__).parent
    text = (folder / "AUGMENTATION.md").read_text()
    for name in AUGMENTATIONS:
        assert f"](pictures/{name}.png)" in text and f"`{name}`" in text
        assert (folder / "pictures" / f"{name}.png").stat().st_size > 5_000
    assert sum(file.stat().st_size for file in (folder / "pictures").iterdir()) < 400_000


def test_the_documented_values_are_those_of_the_settings() -> None:
    text = (Path(training.__file__).parent / "AUGMENTATION.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    told = {tuple(row[0].strip("`").split(".")): row[1:3] for row in rows}
    found = {
        (name, field): [json.dumps(getattr(getattr(settings, name), field)) for settings in (Augmentation(), published)]
        for published in [Augmentation.published()]
        for name, part in parts(published)
        for field in type(part).model_fields
    }
    assert {key: told.get(key) for key in found} == {
        key: [default, known if key[0] in ELEVEN else "-"] for key, (default, known) in found.items()
    }


def test_a_picture_shows_the_crop_before_and_after(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    pictures.picture_of("flip").save(tmp_path / "flip.png")
    panels = np.asarray(image_module.open(tmp_path / "flip.png").convert("RGB"))[40:168]
    before, after = panels[:, 6:134], panels[:, 140:268]
    assert not np.array_equal(before, after)
    same = [np.rot90(side, turn) for side in (before, before[:, ::-1]) for turn in range(4)]
    assert any(np.array_equal(after, turned) for turned in same)


def test_none_and_published_switch_off_what_they_do_not_have() -> None:
    assert {part.chance for _, part in parts(Augmentation.none())} == {0.0}  # type: ignore[attr-defined]
    chances = {name: part.chance for name, part in parts(Augmentation.published())}  # type: ignore[attr-defined]
    eleven = [0.5, 0.5, 1.0, 0.75, 0.75, 0.9, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert chances == dict(zip(ELEVEN, eleven, strict=True)) | dict.fromkeys(OURS, 0.0)


@pytest.mark.parametrize(
    ("raw", "labels", "said"),
    [
        (torch.zeros(4, 16, 16), torch.zeros(4, 16, 15, dtype=torch.int32), "both have one shape"),
        (torch.zeros(4, 16, 8), torch.zeros(4, 16, 8, dtype=torch.int32), "at least as large as the crop"),
        (torch.zeros(16, 16), torch.zeros(16, 16, dtype=torch.int32), "three axes"),
        (torch.zeros(4, 16, 16), torch.zeros(4, 16, 16), "signed integers"),
        (torch.zeros(4, 16, 16), torch.zeros(4, 16, 16, dtype=torch.uint16), "Renumber"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(raw: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        augmented(raw, labels, (4, 16, 16), np.random.default_rng(0), Augmentation())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_everything_runs_on_cuda_and_gives_what_the_cpu_gives() -> None:
    noisy = {"cut_noise", "noise", "elastic"}  # their noise is made by the device's own generator
    for name in AUGMENTATIONS:
        grey, ids = AUGMENTATIONS[name](*sample(device="cuda"), np.random.default_rng(3), only(name))
        assert grey.is_cuda and ids.is_cuda
        if name not in noisy:
            assert torch.allclose(grey.cpu(), applied(name, 3)[0], atol=1e-3)
            assert (ids.cpu() == applied(name, 3)[1]).float().mean() > 0.999
    for settings in (Augmentation(), Augmentation.published()):
        raw, labels = sample(window((4, 32, 32), settings), "cuda")
        first, second = (augmented(raw, labels, (4, 32, 32), np.random.default_rng(0), settings) for _ in range(2))
        assert first[0].is_cuda and torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
