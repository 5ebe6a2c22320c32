"""A few predictions of the network in training beside the truth, stored as arrays and drawn as one sheet."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.png import DPI, MARGINS, replace
from pipeline.pictures.scale_bar import LENGTHS_NM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

EXAMPLES_FILE = "examples.npz"
ARRAYS = ("raw", "truth", "semantic", "boundary", "instances")
COLUMNS = ("image", "truth", "mask probability", "boundary probability", "predicted instances")
PANEL_INCHES = 2.45
# Of true instances, told apart by neighbours; a prediction has the colour of the instance it covers most.
_INSTANCE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#B5E48C", "#9D8DF1")
FALSE = "#FF2D2D"  # a prediction where there is nothing
Rgb = NDArray[np.float64]


@dataclass(frozen=True)
class ValidationExample:
    """One small crop, arrays of one shape (z, y, x).

    Attributes:
        name: of the volume, and where in it.
        raw: uint8 grey levels.
        truth, instances: integer ids, 0 = background: the truth's and the predicted ones.
        semantic, boundary: uint8 probabilities, 255 = 1.
        voxel_size_nm: (z, y, x); without it the sheet has no scale bar.
    """

    name: str
    raw: NDArray[np.uint8]
    truth: NDArray[Any]
    semantic: NDArray[np.uint8]
    boundary: NDArray[np.uint8]
    instances: NDArray[Any]
    voxel_size_nm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Examples:
    """Crops that one network predicted, and the step of the training in which it did."""

    step: int
    examples: tuple[ValidationExample, ...]


def write_examples(output: Path, step: int, examples: Sequence[ValidationExample]) -> Path:
    """Store examples in the output directory of a training, in place of earlier ones; needs numpy only.

    Raises:
        OSError: the disk is full or cannot be written; the earlier file survives.
    """
    arrays: dict[str, Any] = {
        f"{key}{n}": getattr(example, key) for n, example in enumerate(examples) for key in ARRAYS
    }
    arrays |= {
        f"voxel_size_nm{n}": np.array(example.voxel_size_nm)
        for n, example in enumerate(examples)
        if example.voxel_size_nm is not None
    }
    content = io.BytesIO()
    np.savez_compressed(content, step=step, names=np.array([example.name for example in examples], np.str_), **arrays)
    return replace(output / EXAMPLES_FILE, content.getvalue())


def read_examples(output: Path) -> Examples | None:
    """The examples in the output directory of a training; None where there are none, or none that can be read."""
    path = output / EXAMPLES_FILE
    if not path.exists():
        return None
    try:
        with np.load(path) as stored:
            names = [str(name) for name in stored["names"]]
            return Examples(int(stored["step"]), tuple(_example(stored, n, name) for n, name in enumerate(names)))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        log.warning("%s cannot be read and is not drawn: %s", path, error)
        return None


def _example(stored: Any, number: int, name: str) -> ValidationExample:
    size = f"voxel_size_nm{number}"
    z, y, x = (float(value) for value in stored[size]) if size in stored else (0.0, 0.0, 0.0)
    return ValidationExample(
        name, **{key: stored[f"{key}{number}"] for key in ARRAYS}, voxel_size_nm=(z, y, x) if x else None
    )


def sheet(examples: Examples) -> Figure:
    """A row an example: image, truth, the two probability maps, predicted instances, in the slice with most truth."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = examples.examples
    tall = [example.raw.shape[1] / example.raw.shape[2] for example in rows] or [1.0]
    size = (PANEL_INCHES * len(COLUMNS) + 0.5, PANEL_INCHES * sum(tall) + 0.3 * len(tall) + 0.75)
    figure = Figure(figsize=size, dpi=DPI, layout=ConstrainedLayoutEngine(rect=MARGINS, hspace=0.01), facecolor="white")
    panels: Any = figure.subplots(len(tall), len(COLUMNS), squeeze=False, height_ratios=tall)
    for axes, title in zip(panels[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=10.5, weight="bold", color="#222222")
    for row, example in zip(panels, rows, strict=False):
        _row(row, example)
    figure.suptitle(
        f"Examples at step {examples.step}", x=0.012, ha="left", fontsize=12.5, weight="bold", color="#222222"
    )
    return figure


def _row(row: Sequence[Axes], example: ValidationExample) -> None:
    z = shown_slice(example)
    raw, truth, instances = example.raw[z], example.truth[z], example.instances[z]
    colours = colours_of_truth(truth)
    images = (
        _grey(raw),
        outlined(_grey(raw), truth, colours),
        example.semantic[z],
        example.boundary[z],
        outlined(_grey(raw), instances, colours_of_predictions(instances, truth, colours), fill_by=0.4),
    )
    mean = example.semantic[z].mean() / 255.0, example.boundary[z].mean() / 255.0
    captions = (
        f"z {z} of 0-{len(example.raw) - 1}, {_extent(example)}",
        _count(truth, "instance"),
        f"black 0, bright 1; mean {mean[0]:.2f}",
        f"black 0, bright 1; mean {mean[1]:.2f}",
        f"{_count(instances, 'instance')}; red: not in the truth",
    )
    for axes, image, caption in zip(row, images, captions, strict=True):
        axes.imshow(image, cmap="magma", vmin=0, vmax=255, aspect="equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(caption, fontsize=8, color="#444444")
        axes.spines[:].set_visible(False)
    row[0].set_ylabel(fill(example.name, max(12, round(24 * len(raw) / raw.shape[1]))), fontsize=9, weight="bold")
    _scale_bar(row[0], example)


def shown_slice(example: ValidationExample) -> int:
    """The slice with most voxels of true instances; the middle one where there are none."""
    counts = np.count_nonzero(example.truth, axis=(1, 2))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def outlined(image: Rgb, labels: NDArray[Any], colours: dict[int, str], fill_by: float = 0.0) -> Rgb:
    """An RGB image (y, x, 3) with each label's rim, and its inside by a share `fill_by`, in the label's colour."""
    from matplotlib.colors import to_rgb

    drawn, edge = image.copy(), inner_rim(labels)
    for label, colour in colours.items():
        inside = labels == label
        drawn[inside] = (1.0 - fill_by) * drawn[inside] + fill_by * np.array(to_rgb(colour))
        drawn[inside & edge] = to_rgb(colour)
    return drawn


def inner_rim(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """The labelled pixels (y, x) whose neighbour up, down, left or right is another label or background."""
    around = np.pad(labels, 1, mode="edge")
    inner = np.ones(labels.shape, bool)
    for moved in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
        inner &= moved == labels
    edge: NDArray[np.bool_] = (labels != 0) & ~inner
    return edge


def colours_of_truth(truth: NDArray[Any]) -> dict[int, str]:
    """A colour for each id of a slice, in the order of the ids."""
    return {label: _INSTANCE_COLOURS[number % len(_INSTANCE_COLOURS)] for number, label in enumerate(_ids(truth))}


def colours_of_predictions(instances: NDArray[Any], truth: NDArray[Any], colours: dict[int, str]) -> dict[int, str]:
    """For each predicted id the colour of the true instance it shares most pixels with, FALSE where it meets none."""
    found = {}
    for label in _ids(instances):
        met, counts = np.unique(truth[(instances == label) & (truth != 0)], return_counts=True)
        found[label] = colours[int(met[counts.argmax()])] if len(met) else FALSE
    return found


def _ids(labels: NDArray[Any]) -> list[int]:
    return [int(label) for label in np.unique(labels) if label != 0]


def _grey(raw: NDArray[np.uint8]) -> Rgb:
    return np.repeat(raw[..., None] / 255.0, 3, axis=2)


def _count(labels: NDArray[Any], what: str) -> str:
    number = len(_ids(labels))
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _extent(example: ValidationExample) -> str:
    height, width = example.raw.shape[1:]
    if example.voxel_size_nm is None:
        return f"{height} x {width} voxels"
    _, y, x = example.voxel_size_nm
    return f"{height} x {width} voxels of {y:g} x {x:g} nm"


def _scale_bar(axes: Axes, example: ValidationExample) -> None:
    """The longest round length that takes at most a third of the width."""
    if example.voxel_size_nm is None:
        return
    width, x_nm = example.raw.shape[2], example.voxel_size_nm[2]
    fitting = [length for length in LENGTHS_NM if length <= width * x_nm / 3]
    if not fitting:
        return
    length, bottom = fitting[-1] / x_nm, 0.94 * example.raw.shape[1]
    left = 0.05 * width
    for colour, thickness in (("black", 4.5), ("white", 2.5)):
        axes.plot([left, left + length], [bottom, bottom], color=colour, linewidth=thickness, solid_capstyle="butt")
    text = f"{fitting[-1]} nm" if fitting[-1] < 1000 else f"{fitting[-1] // 1000} um"
    box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1.5}
    axes.text(left, bottom - 0.035 * example.raw.shape[1], text, color="white", fontsize=7.5, va="bottom", bbox=box)
