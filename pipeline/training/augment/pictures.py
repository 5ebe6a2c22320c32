"""One picture of each augmentation, on the synthetic phantom: `python -m pipeline.training.augment.pictures DIRECTORY`.

Drawn with the published strengths (ours: with the default ones), but for those that would fill or hardly show in a
picture of 1.7 um; the caption says so. Needs pillow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.geometry import Box, vec3
from pipeline.training.augment.compose import AUGMENTATIONS, augmented, window
from pipeline.training.augment.settings import Augmentation
from pipeline.training.augment.warp import centre

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 128
_VOXEL_NM = (30.0, 12.0, 12.0)
_OUTLINES = np.array([[255, 204, 0], [0, 220, 255], [255, 110, 180], [120, 255, 120]], np.uint8)


class _Scene(NamedTuple):
    """What is drawn: how many slices, which draw, and strengths that differ from the published ones."""

    slices: int
    seed: int
    title: str
    changes: dict[str, Any]


_SCENES = {
    "rotate": _Scene(1, 16, "by any angle", {}),
    "rescale": _Scene(1, 0, "y and x stretched on their own", {}),
    "flip": _Scene(1, 2, "mirrored, y and x swapped", {}),
    "elastic": _Scene(1, 0, "drawn four times as strong", {"alpha": 64.0}),
    "grayscale": _Scene(3, 10, "contrast, brightness, gamma; here by slice", {"by_slice": 1.0}),
    "missing_parts": _Scene(3, 19, "band of 21 voxels (published: 81)", {"half_width": 10}),
    "missing_section": _Scene(3, 1, "two slices deleted", {}),
    "misalignment": _Scene(4, 13, "all slices from the third on shifted", {"rotation": 0.0, "slip": 0.0}),
    "motion_blur": _Scene(3, 0, "two slices, 11 voxels", {}),
    "cut_blur": _Scene(1, 4, "cuboid at lower resolution", {}),
    "cut_noise": _Scene(1, 4, "cuboid with noise", {}),
    "scale_jitter": _Scene(1, 2, "one zoom for y and x", {}),
    "slice_brightness": _Scene(3, 4, "drawn three times as strong", {"sigma": 0.12}),
    "noise": _Scene(1, 9, "up to 0.08 of the grey range", {}),
    "blur": _Scene(1, 0, "3x3 binomial filter", {}),
    "bad_slice": _Scene(3, 0, "one slice without contrast", {}),
}


def draw_pictures(directory: Path) -> None:
    """Write `NAME.png` for each augmentation into `directory`, which is made if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in AUGMENTATIONS:
        picture_of(name).save(directory / f"{name}.png", optimize=True)


def picture_of(name: str) -> Image:
    """The slices before (upper row, left where there is one) and after; coloured lines are the objects' outlines."""
    scene = _SCENES[name]
    settings, crop = _settings(name), (scene.slices, _SIDE, _SIDE)
    raw, labels = _tissue(window(crop, settings))
    grey, ids = augmented(raw, labels, crop, np.random.default_rng(scene.seed), settings)
    before = centre(raw, crop[1:]), centre(labels, crop[1:])
    rows = [_row("before", *before, range(1, len(raw) + 1)), _row("after", grey, ids, _origins(name, raw, grey))]
    if name == "misalignment":
        rows = [[(caption, _crossed(panel)) for caption, panel in row] for row in rows]
    return _arranged(f"{name.replace('_', ' ')}: {scene.title}", rows)


def _settings(name: str) -> Augmentation:
    published = getattr(Augmentation.published(), name)
    part = published if published.chance > 0 else getattr(Augmentation(), name)
    changes = {"chance": 1.0} | _SCENES[name].changes
    return Augmentation.only(**{name: part.model_copy(update=changes)})


def _tissue(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    from pipeline.phantom import Phantom

    start = vec3((10, 200 - shape[1] // 2, 200 - shape[2] // 2))
    box = Box(start, start + vec3(shape))
    raw, labels = Phantom(vec3((64, 400, 400)), 7, _VOXEL_NM).both(box)
    low, high = np.percentile(raw, (1, 99))
    return torch.from_numpy((raw.astype(np.float32) - low) / (high - low)).float(), torch.from_numpy(
        labels.astype(np.int64)
    )


def _origins(name: str, raw: Tensor, grey: Tensor) -> list[int]:
    """Which slice each one was."""
    if name != "missing_section":
        return list(range(1, len(grey) + 1))
    inner = centre(raw, (grey.shape[1], grey.shape[2]))
    return [next(z + 1 for z in range(len(raw)) if torch.equal(inner[z], slice_)) for slice_ in grey]


def _row(word: str, raw: Tensor, labels: Tensor, numbers: range | list[int]) -> list[tuple[str, NDArray[np.uint8]]]:
    many = len(raw) > 1
    return [
        (f"{word}, slice {number}" if many else word, _outlined(grey.numpy(), ids.numpy()))
        for number, grey, ids in zip(numbers, raw, labels, strict=True)
    ]


def _outlined(grey: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(H, W, 3): grey levels in 12 steps (small files), each object's outermost voxels in its colour."""
    steps = (np.clip(grey * 0.8 + 0.1, 0, 1) * 11).round() * 23
    image = np.repeat(steps.astype(np.uint8)[..., None], 3, axis=-1)
    padded = np.pad(labels, 1, mode="edge")
    around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    edge = (labels > 0) & np.any([neighbour != labels for neighbour in around], axis=0)
    image[edge] = _OUTLINES[labels[edge] % len(_OUTLINES)]
    return image


def _crossed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dashed middle lines, to see a shift by."""
    dashes = np.arange(_SIDE) // 4 % 2 == 0
    image[_SIDE // 2, dashes] = image[dashes, _SIDE // 2] = (255, 40, 40)
    return image


def _arranged(title: str, rows: list[list[tuple[str, NDArray[np.uint8]]]]) -> Image:
    """Single panels stand side by side, several above each other."""
    from PIL import Image, ImageDraw, ImageFont

    if all(len(row) == 1 for row in rows):
        rows = [[row[0] for row in rows]]
    pitch, high = _SIDE + 6, _SIDE + 20
    size = (max(2, *(len(row) for row in rows)) * pitch + 6, 22 + len(rows) * high + 4)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    pen.text((6, 4), title, fill="black", font=ImageFont.load_default(13))
    for line, row in enumerate(rows):
        for column, (caption, panel) in enumerate(row):
            x, y = 6 + column * pitch, 22 + line * high
            pen.text((x, y + 2), caption, fill=(80, 80, 80), font=ImageFont.load_default(11))
            picture.paste(Image.fromarray(panel), (x, y + 18))
    return picture.quantize(40, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


if __name__ == "__main__":
    draw_pictures(Path(sys.argv[1]))
