"""A sheet of pictures of a restoration: what was imaged and what it was replaced by, between the slices beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.denoise.summary import Totals, headline, in_words, restoration_summary
from pipeline.geometry import Box
from pipeline.pictures.outlines import outlines
from pipeline.pictures.png import DPI, MARGINS, write_png
from pipeline.pictures.scale_bar import LENGTHS_NM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.denoise.stages.restore import RestoreStage

_COLUMNS = ("slice before", "as imaged", "restored", "slice after")
OUTLINE = "#F0E442"  # yellow of Okabe and Ito on black: seen on every grey, by every kind of eye
SHORTEST, LONGEST = 128, 512  # pixels of a side of a picture, of the volume; larger regions are cut
_MARGIN = 0.25  # of the longest side of a region, on each side
_PANEL_INCHES = 2.3
_LEAST_CONTRAST = 24.0  # grey levels from black to white
_GREYS = 32  # no eye tells them from 256 in a noisy picture, and the file is half as large


@dataclass(frozen=True)
class Picture:
    """A replaced region in one slice.

    Attributes:
        box: what is shown, one slice.
        run: the first and the last of the consecutive slices that are replaced here.
        planes: grey levels (y, x) of the slice before the run, this one as imaged, this one restored, the slice after
            the run; None beyond the end of the volume.
        replaced: bool (y, x).
    """

    box: Box
    run: tuple[int, int]
    planes: tuple[NDArray[np.generic] | None, ...]
    replaced: NDArray[np.bool_]


def write_restored_sheet(stage: RestoreStage, path: Path, sums: Totals, most: int = 6) -> bool:
    """Draw examples of a finished restoration as PNG; False, and no file, where nothing was replaced.

    Args:
        stage: every block of it done.
        path: of the PNG.
        sums: its ``totals``.
        most: examples at most, each of another slice: by voxels replaced in one block, evenly from the largest to the
            smallest.

    Raises:
        BadInput: an array cannot be read.
        OSError: the picture cannot be written.
    """
    shown = [picture(stage, z, int(sums.block[z])) for z in chosen_places(sums, most)]
    if not shown:
        path.unlink(missing_ok=True)  # of a restoration before
        return False
    title = f"Restored by {stage.spec.name}: {headline(restoration_summary(stage, sums))}"
    write_png(_drawn(shown, title, stage.op.pixel), path)
    return True


def chosen_places(sums: Totals, most: int) -> list[int]:
    """Up to ``most`` of the slices with something replaced, evenly from that with the most in one block to the least.

    The largest alone would be whole slices and nothing else. Of slices in a row one is enough, if there are others.
    """
    touched = np.flatnonzero(sums.largest)
    rows = np.split(touched, np.flatnonzero(np.diff(touched) > 1) + 1)
    slices = touched if 2 * len(rows) < most else np.array([row[sums.largest[row].argmax()] for row in rows])
    ranked = slices[np.argsort(-sums.largest[slices], kind="stable")]
    places = np.linspace(0, len(ranked) - 1, min(most, len(ranked)))
    found: list[int] = ranked[np.rint(places).astype(np.int64)].tolist()
    return found


def picture(stage: RestoreStage, z: int, number: int) -> Picture:
    """The largest replaced region of slice ``z`` in a block, with what lies around it."""
    box = _window(_region(stage, z, number), stage.grid.extent)
    replaced = stage.replaced.read(box)[0] > 0
    first, last = _run(stage, box, replaced)
    imaged = stage.grey.to_grey(stage.source.read(box))[0]
    planes = (_plane(stage, box, first - 1), imaged, _plane(stage, box, z), _plane(stage, box, last + 1))
    return Picture(box, (first, last), planes, replaced)


def _region(stage: RestoreStage, z: int, number: int) -> Box:
    """The box of the largest connected part of what is replaced in a slice of a block."""
    core = _at(stage.grid[number].core, z)
    labels, _ = ndimage.label(stage.replaced.read(core)[0])
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    y, x = ndimage.find_objects(labels)[largest - 1]
    return Box((0, y.start, x.start), (1, y.stop, x.stop)).shifted(core.start)


def _window(region: Box, extent: Sequence[int]) -> Box:
    """A square around a region, moved into the volume, or as much of one as the volume holds."""
    side = min(max(SHORTEST, round((1 + 2 * _MARGIN) * max(region.shape[1:]))), LONGEST)
    spans = []
    for start, stop, n in zip(region.start[1:], region.stop[1:], extent[1:], strict=True):
        low = max(0, min((start + stop - side) // 2, n - side))
        spans.append((low, min(low + side, n)))
    (y0, y1), (x0, x1) = spans
    return Box((region.start[0], y0, x0), (region.stop[0], y1, x1))


def _run(stage: RestoreStage, box: Box, replaced: NDArray[np.bool_]) -> tuple[int, int]:
    """The first and last of the slices around this one in which half of these pixels or more are replaced too."""
    z = box.start[0]
    reach = stage.op.max_gap if stage.op.channels == 2 else 0

    def too(other: int) -> bool:
        inside = 0 <= other < stage.grid.extent[0]
        return inside and 2 * np.count_nonzero(stage.replaced.read(_at(box, other))[0][replaced]) >= replaced.sum()

    below, above = (list(takewhile(too, (z + step * k for k in range(1, reach + 1)))) for step in (-1, 1))
    return z - len(below), z + len(above)


def _plane(stage: RestoreStage, box: Box, z: int) -> NDArray[np.generic] | None:
    """A slice of what the network sees; None beyond the end of the volume."""
    return stage.restored.read(_at(box, z))[0] if 0 <= z < stage.grid.extent[0] else None


def _at(box: Box, z: int) -> Box:
    return Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))


def _drawn(pictures: Sequence[Picture], title: str, pixel: tuple[float, float]) -> Figure:
    """A row a picture; ``pixel`` is its size y x, nm."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    tall = [min(3.0, max(0.3, one.box.shape[1] * pixel[0] / (one.box.shape[2] * pixel[1]))) for one in pictures]
    size = (_PANEL_INCHES * len(_COLUMNS), sum(t * _PANEL_INCHES + 0.25 for t in tall) + 0.75)
    figure = Figure(figsize=size, dpi=DPI, layout=ConstrainedLayoutEngine(rect=MARGINS, hspace=0.01), facecolor="white")
    rows = figure.subplots(len(tall), len(_COLUMNS), squeeze=False, height_ratios=tall)
    for row, one in zip(rows, pictures, strict=True):
        _row(row, one, pixel)
    for axes, name in zip(rows[0], _COLUMNS, strict=True):
        axes.set_title(name, fontsize=10.5, weight="bold")
    figure.suptitle(fill(title, 100), x=0.012, ha="left", fontsize=10.5, weight="bold")
    return figure


def _row(row: Sequence[Axes], one: Picture, pixel: tuple[float, float]) -> None:
    from matplotlib import colormaps

    (z, y, x), (_, bottom, right) = one.box.start, one.box.stop
    first, last = one.run
    height, width = one.box.shape[1] * pixel[0], one.box.shape[2] * pixel[1]
    low, high = _contrast(one)
    greys = colormaps["gray"].resampled(_GREYS)
    count = in_words(int(np.count_nonzero(one.replaced)), "voxel")
    captions = (
        f"z {first - 1}",
        f"z {z}, y {y}:{bottom}, x {x}:{right}",
        f"{count} replaced" if first == last else f"{count}, {last - first + 1} slices in a row",
        f"z {last + 1}",
    )
    for axes, plane, name, caption in zip(row, one.planes, _COLUMNS, captions, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if plane is None:
            axes.text(0.5, 0.5, f"no {name}", ha="center", va="center", color="0.4", transform=axes.transAxes)
            continue
        axes.imshow(plane, cmap=greys, vmin=low, vmax=high, extent=(0, width, height, 0), interpolation_stage="data")
        axes.set_xlabel(caption, fontsize=8)
    _outline(row[1], one.replaced, pixel)
    _scale_bar(row[0] if one.planes[0] is not None else row[2], width)


def _contrast(one: Picture) -> tuple[float, float]:
    """Black and white of a row: of the tissue, not of its damage, the second plane."""
    planes = [plane[::2, ::2].ravel() for plane in (one.planes[0], *one.planes[2:]) if plane is not None]
    grey = np.concatenate(planes)
    low, high = (float(value) for value in np.percentile(grey[grey > 0] if grey.any() else grey, (0.5, 99.5)))
    return low, max(high, low + _LEAST_CONTRAST)


def _outline(axes: Axes, replaced: NDArray[np.bool_], pixel: tuple[float, float]) -> None:
    from matplotlib.collections import LineCollection

    corners = list((outlines(np.pad(replaced, 1)) - 1)[:, :, ::-1] * pixel[::-1])
    for colour, width in (("black", 2.6), (OUTLINE, 1.3)):
        axes.add_collection(LineCollection(corners, colors=colour, linewidths=width, capstyle="projecting"))


def _scale_bar(axes: Axes, width: float) -> None:
    """The longest round length that takes at most a third of the width, nm; none in a tiny picture."""
    length = max((length for length in LENGTHS_NM if length <= width / 3), default=0)
    if length:
        text = f"{length} nm" if length < 1000 else f"{length // 1000} µm"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.8}
        axes.text(0.05, 0.075, text, fontsize=7.5, bbox=box, transform=axes.transAxes)
        bar = axes.get_xaxis_transform()  # nm across, a share of the picture up
        for colour, line in (("white", 5.0), ("black", 2.5)):
            ends = [0.05 * width, 0.05 * width + length]
            axes.plot(ends, [0.04, 0.04], color=colour, linewidth=line, solid_capstyle="butt", transform=bar)
