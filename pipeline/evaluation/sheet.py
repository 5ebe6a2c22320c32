"""A sheet of pictures: examples in three planes each, the outlines of truth and prediction over the image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.examples import GROUPS, Example, Extent
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.pictures.outlines import outlines
from pipeline.store.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

TRUTH, PREDICTION = "#56B4E9", "#D55E00"  # sky blue and vermilion of Okabe and Ito: apart for every kind of eye
_NAMES = ("xy", "xz", "yz")
_MARGIN = 0.2  # of the longest side of an example's box, on each side
LONGEST = 512  # voxels of a picture along each axis; larger ones are cut around the planes
TRUTH_LINE, LINE = 3.5, 1.4  # points; the prediction lies over the truth, and both are seen where they agree
LONGEST_ID = 7
EDGE = 0.015  # of a picture, white around it
_PANEL_INCHES = 2.2
_DPI = 110
_MARK, _HEAD = "Comment", 4096  # of a PNG: the keyword of a text chunk, and bytes that hold it


@dataclass(frozen=True)
class _Plane:
    """One plane of a view: labels and image, (rows, columns) = (y, x), (z, x) or (z, y).

    Attributes:
        axis: across the plane, 0 for xy, 1 for xz, 2 for yz.
        at: its place on that axis, voxels.
        prediction, truth: labels.
        image: of any dtype, or None.
    """

    axis: int
    at: int
    prediction: NDArray[Any]
    truth: NDArray[Any]
    image: NDArray[Any] | None


@dataclass(frozen=True)
class View:
    """An example with its three planes."""

    example: Example
    planes: tuple[_Plane, ...]


def example_view(
    example: Example, extent: Extent, volumes: tuple[Volume, Volume, Volume | None], size: FloatVec3 | None
) -> View:
    """Read the three planes of an example.

    Args:
        example, extent: what and where.
        volumes: prediction, truth and image of one shape; the image may be None.
        size: of a voxel, nm z y x; None where it is not known.
    """
    window = _window(extent, volumes[0].box, size or (1.0, 1.0, 1.0))
    return View(example, tuple(_plane(axis, extent.centre, window, volumes) for axis in range(3)))


def drawn_sheet(views: Sequence[View], size: FloatVec3 | None) -> Figure:
    """All views on one figure: four groups, a row of three planes each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [[one for one in views if one.example.group == name] for name in GROUPS]
    heights = [max(1, *map(len, pair)) for pair in (groups[:2], groups[2:])]
    figure = Figure(figsize=(6.4 * _PANEL_INCHES, (sum(heights) + 0.8) * (_PANEL_INCHES + 0.45)), layout="constrained")
    FigureCanvasAgg(figure)
    _legend(figure)
    places = figure.subfigures(2, 2, squeeze=False, height_ratios=heights, wspace=0.03, hspace=0.03).ravel()
    for place, name, group, height in zip(places, GROUPS, groups, np.repeat(heights, 2), strict=True):
        _draw_group(place, name, group, int(height), size)
    return figure


def png(figure: Figure, mark: str = "") -> bytes:
    """A figure as PNG, with a mark in its metadata."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={_MARK: mark})
    return buffer.getvalue()


def marked(path: Path, mark: str) -> bytes:
    """The content of a PNG that bears a mark; nothing where there is none, or one of another mark."""
    content = path.read_bytes() if path.is_file() else b""
    return content if f"{_MARK}\0{mark}".encode() in content[:_HEAD] else b""


def title(example: Example) -> str:
    """What a row shows, in words."""
    predictions, truths = (", ".join(map(str, ids)) for ids in (example.predictions, example.truths))
    if example.group == "false merges":
        return f"prediction {predictions} merges truth {truths}"
    if example.group == "false splits":
        return f"truth {truths} split into {predictions}"
    if not example.truths:
        return f"prediction {predictions}: touches no truth that counts"
    if not example.predictions:
        return f"truth {truths}: missed"
    return f"IoU {example.iou:.3f}, truth {truths}, prediction {predictions}"


def _window(extent: Extent, whole: Box, size: FloatVec3) -> Box:
    """The box of an example with a margin that is as wide along every axis, not longer than a picture may be."""
    longest = max(length * step for length, step in zip(extent.box.shape, size, strict=True))
    margin = vec3(max(2, round(_MARGIN * longest / step)) for step in size)
    grown = extent.box.grown(margin).clipped(whole)
    centre = extent.centre
    near = Box(vec3(c - LONGEST // 2 for c in centre), vec3(c + LONGEST // 2 for c in centre))
    return grown.clipped(near)


def _plane(axis: int, centre: Vec3, window: Box, volumes: tuple[Volume, Volume, Volume | None]) -> _Plane:
    start, stop = list(window.start), list(window.stop)
    start[axis], stop[axis] = centre[axis], centre[axis] + 1
    box = Box(vec3(start), vec3(stop))
    prediction, truth, image = (None if volume is None else volume.read(box).squeeze(axis) for volume in volumes)
    assert prediction is not None and truth is not None
    return _Plane(axis, centre[axis], prediction, truth, image)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=TRUTH, linewidth=TRUTH_LINE), Line2D([], [], color=PREDICTION, linewidth=LINE)]
    names = ["truth", "prediction (thin lines: other instances)"]
    figure.legend(lines, names, loc="outside upper center", ncols=2, frameon=False)


def _draw_group(place: SubFigure, name: str, views: Sequence[View], rows: int, size: FloatVec3 | None) -> None:
    place.suptitle(name, fontweight="bold")
    for row, one in zip(_rows(place, rows), views, strict=False):
        row.suptitle(title(one.example), fontsize=8, x=0.02, ha="left")
        for axes, plane in zip(row.subplots(1, 3), one.planes, strict=True):
            _draw_plane(axes, one.example, plane, size)
    if not views:
        place.text(0.5, 0.5, "none", ha="center", va="center", color="0.4")


def _rows(place: SubFigure, rows: int) -> list[SubFigure]:
    return list(place.subfigures(rows, 1, squeeze=False).ravel())


def _draw_plane(axes: Axes, example: Example, plane: _Plane, size: FloatVec3 | None) -> None:
    down, right = (step for axis, step in enumerate(size or (1.0, 1.0, 1.0)) if axis != plane.axis)
    height, width = plane.truth.shape[0] * down, plane.truth.shape[1] * right
    axes.imshow(_background(plane), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")
    _draw_outlines(axes, plane.truth, example.truths, (down, right), (TRUTH, TRUTH_LINE))
    _draw_outlines(axes, plane.prediction, example.predictions, (down, right), (PREDICTION, LINE))
    axes.set(xticks=[], yticks=[])
    axes.set(xlim=(-EDGE * width, (1 + EDGE) * width), ylim=((1 + EDGE) * height, -EDGE * height))
    axes.set_title(f"{_NAMES[plane.axis]}, {'zyx'[plane.axis]} = {plane.at}", fontsize=7)
    _scale_bar(axes, width, height, "voxels" if size is None else "nm")


def _draw_outlines(
    axes: Axes, labels: NDArray[Any], ids: tuple[int, ...], step: tuple[float, float], style: tuple[str, float]
) -> None:
    """The instances of ``ids`` in lines of full width, closed where the volume ends; others in lines of half of it."""
    from matplotlib.collections import LineCollection

    named = np.isin(labels, np.array(ids, np.uint64).astype(labels.dtype))
    closed = outlines(np.pad(np.where(named, labels, 0), 1)) - 1
    for segments, share in ((outlines(np.where(named, 0, labels)), 0.5), (closed, 1.0)):
        corners = segments[:, :, ::-1] * step[::-1]
        axes.add_collection(LineCollection(list(corners), colors=style[0], linewidths=share * style[1]))
    if len(ids) > 1:
        _name_parts(axes, labels, ids, step, style[0])


def _name_parts(axes: Axes, labels: NDArray[Any], ids: tuple[int, ...], step: tuple[float, float], colour: str) -> None:
    for identity in ids:
        rows, columns = np.nonzero(labels == labels.dtype.type(identity))
        if len(rows):
            middle = len(rows) // 2  # a pixel of the part: the middle of a bent one may lie outside it
            at = ((columns[middle] + 0.5) * step[1], (rows[middle] + 0.5) * step[0])
            box = {"facecolor": "white", "edgecolor": colour, "pad": 1.0, "alpha": 0.85}
            axes.text(*at, _shortened(identity), fontsize=6, ha="center", va="center", bbox=box)


def _shortened(identity: int) -> str:
    """The last digits of a long id; the row's title has it whole."""
    text = str(identity)
    return text if len(text) <= LONGEST_ID else "…" + text[-LONGEST_ID:]


def _background(plane: _Plane) -> NDArray[np.float64]:
    """The image stretched from its 1st to its 99th percentile, or three greys: both labels, one, none."""
    if plane.image is None:
        return 0.97 - 0.17 * (plane.truth > 0) - 0.17 * (plane.prediction > 0)
    low, high = np.percentile(plane.image, (1, 99))
    stretched: NDArray[np.float64] = np.clip((plane.image - float(low)) / max(float(high - low), 1e-9), 0, 1)
    return stretched


def _scale_bar(axes: Axes, width: float, height: float, unit: str) -> None:
    length = _round_length(width / 3)
    left, bottom = 0.05 * width, 0.95 * height
    for colour, line in (("white", 4.0), ("black", 2.0)):
        axes.plot([left, left + length], [bottom, bottom], color=colour, linewidth=line, solid_capstyle="butt")
    text = f"{length / 1000:g} µm" if unit == "nm" and length >= 1000 else f"{length:g} {unit}"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.75}
    axes.text(left, bottom - 0.04 * height, text, fontsize=6, ha="left", va="bottom", bbox=box)


def _round_length(limit: float) -> float:
    """The largest 1, 2 or 5 times a power of ten up to ``limit``."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step * power for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))
