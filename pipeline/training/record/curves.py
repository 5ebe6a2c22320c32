"""The curves of a training as pictures and for TensorBoard, drawn from its log alone, at any time, again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.png import DPI, MARGINS, write_png
from pipeline.training.record.examples import read_examples, sheet
from pipeline.training.record.history import Column, History, is_number, moving_mean, read_history
from pipeline.training.record.tensorboard import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

CURVES, EXAMPLES = "curves.png", "examples.png"
LABELLED = {"iou": "Foreground IoU", "ap75": "Instances: AP-75"}
RESTORED = {"psnr": "PSNR in dB", "gain": "Gain in dB over what needs no network"}
PARTS = {"semantic": "mask", "boundary": "boundary", "dice": "Dice"}
# Okabe and Ito's colours, which people with any colour vision can tell apart.
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DARK, FAINT = "#222222", "#8a8a8a"
SMOOTHED_PARTS = 40  # a smoothed curve averages a 40th of the steps, and at least five
LOGARITHMIC_FROM = 20.0  # ratio of the largest to the smallest smoothed loss
DRAWN = 3000  # points of a line
_DRAWING = threading.Lock()


def draw_curves(output: Path, events: Events | None = None) -> None:
    """Draw what `draw_all` draws, as well as this machine can: a picture must never stop a training.

    Where matplotlib or tensorboard is missing, or the disk is full, a line in the log says so.
    """
    try:
        draw_all(output, events)
    except OSError as error:
        log.warning("the curves in %s could not be drawn: %s", output, error)


def draw_all(output: Path, events: Events | None = None) -> list[Path]:
    """Write curves.png, examples.png and tensorboard/ into the output directory of a training, from its files.

    Whole files replace those of an earlier call; threads take turns.

    Args:
        output: directory of the training.
        events: of the training, which stay open; without them the events are opened and closed.

    Returns:
        What was written; without curves.png and examples.png where matplotlib is missing, without tensorboard/ where
        tensorboard is.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    with _DRAWING:
        history, examples = read_history(output), read_examples(output)
        written, pictured = [], None
        if _there("matplotlib", output):
            written.append(write_png(curves(history, output.absolute().name), output / CURVES))
            if examples is not None:
                written.append(write_png(sheet(examples), output / EXAMPLES))
                pictured = (examples.step, output / EXAMPLES)
        if _there("tensorboard", output):
            with nullcontext(events) if events is not None else closing(Events(output)) as opened:
                written.append(opened.update(history, pictured))
        return written


@cache
def _there(package: str, output: Path) -> bool:
    """Whether a package can be imported; says once where it cannot."""
    found = find_spec(package) is not None
    if not found:
        log.info("%s is not installed: `teramito curves %s` draws on another machine", package, output)
    return found


def curves(history: History, title: str) -> Figure:
    """The picture: loss and its parts, learning rate, scores of each validated volume, time waited for data."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(rect=MARGINS, hspace=0.03, wspace=0.03)
    figure = Figure(figsize=(12.5, 7.6), dpi=DPI, layout=layout, facecolor="white")
    grid = figure.add_gridspec(3, 2, height_ratios=(1.0, 1.0, 0.72))
    loss, rate = figure.add_subplot(grid[:2, 0]), figure.add_subplot(grid[2, 0])
    scored = [figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])]
    waited = figure.add_subplot(grid[2, 1])
    _loss(loss, history)
    _rate(rate, history)
    titles = RESTORED if any("psnr" in entry for entry in history.validations) else LABELLED
    for axes, (key, said) in zip(scored, titles.items(), strict=True):
        _scores(axes, history, key, said)
    _waited(waited, history)
    for axes in (loss, rate, *scored, waited):
        _plain(axes, max(1, history.last_step))
    figure.suptitle(f"{title}: {_summary(history)}", x=0.012, ha="left", fontsize=12.5, weight="bold", color=DARK)

    return figure


def _loss(axes: Axes, history: History) -> None:
    axes.set_title("Loss (thin: each step, thick: running mean)")
    lowest, highest = np.inf, -np.inf
    for colour, (key, label) in zip((DARK, *_LINE_COLOURS), {"loss": "total", **PARTS}.items(), strict=False):
        mean = _raw_and_smooth(axes, history.column(key), label, colour, lambda values: values)
        if np.isfinite(mean).any():
            lowest, highest = min(lowest, float(np.nanmin(mean))), max(highest, float(np.nanmax(mean)))
    if lowest > 0 and highest > LOGARITHMIC_FROM * lowest:
        axes.set_yscale("log")
    if axes.lines:
        axes.legend(loc="upper right", frameon=False, fontsize=9)


def _raw_and_smooth(axes: Axes, column: Column, label: str, colour: str, scaled: Callable[[Any], Any]) -> Any:
    """Two lines, one of every value (without a label) and one of the running mean; returns the latter's values."""
    steps, values = column
    mean = moving_mean(values, _window(len(values)))
    if len(values):
        for line, style in ((values, {"alpha": 0.28, "linewidth": 0.7}), (mean, {"linewidth": 1.8, "label": label})):
            at = extremes(line)
            axes.plot(steps[at], scaled(line[at]), color=colour, **style)
    return mean


def extremes(values: NDArray[np.float64], most: int = DRAWN) -> NDArray[np.int64]:
    """Where to draw a line of many values: the least and the greatest of each of `most` / 2 stretches, ascending.

    It looks like the line of all values at this size, and 30,000 of them took 3 s to draw.
    """
    if len(values) <= most:
        return np.arange(len(values))
    ends = np.linspace(0, len(values), most // 2 + 1).astype(np.int64)
    parts = [np.nan_to_num(values[first:last]) for first, last in pairwise(ends)]
    found = [(first + part.argmin(), first + part.argmax()) for first, part in zip(ends, parts, strict=False)]
    return np.unique(np.array(found, np.int64))


def _window(count: int) -> int:
    return max(5, count // SMOOTHED_PARTS) // 2 * 2 + 1


def _rate(axes: Axes, history: History) -> None:
    axes.set_title("Learning rate")
    steps, values = history.column("rate")
    axes.plot(steps, values, color=DARK, linewidth=1.5, label="rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")


def _scores(axes: Axes, history: History, key: str, title: str) -> None:
    axes.set_title(title)
    if key in LABELLED:
        axes.set_ylim(-0.02, 1.02)
    for number, volume in enumerate(history.volumes):
        steps, values = history.scores(volume, key)
        if not len(values):
            continue
        colour = _LINE_COLOURS[number % len(_LINE_COLOURS)]
        label = f"{volume}  {values[-1]:.3f}"
        axes.plot(steps, values, color=colour, marker="o", markersize=3, linewidth=1.5, label=label)
        best = np.flatnonzero(steps == history.best_step)
        if len(best):  # nothing, not clipped, has no place in a layout
            axes.plot(
                steps[best], values[best], color=colour, marker="*", markersize=13, linestyle="none", clip_on=False
            )
    if not axes.lines:
        axes.text(0.5, 0.5, "not validated yet", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        return
    if history.best_step is not None:
        axes.axvline(history.best_step, color=FAINT, linestyle=":", linewidth=1.2, zorder=0)
    axes.legend(loc="lower right", framealpha=0.85, edgecolor="none", fontsize=8.5)


def _waited(axes: Axes, history: History) -> None:
    column = history.waited()
    axes.set_title(f"Time waited for data{_pace(history)}")
    _raw_and_smooth(axes, column, "waited", _LINE_COLOURS[0], lambda share: 100.0 * share)
    axes.set_ylim(0, 100.0 * max(0.02, min(1.0, 1.2 * float(column[1].max(initial=0.0)))))
    axes.set_ylabel("% of a step")
    axes.set_xlabel("step")


def _pace(history: History) -> str:
    """How much waiting and how many voxels a second, over all steps that say so."""
    timed = [entry for entry in history.steps if is_number(entry.get("seconds")) and entry["seconds"] > 0]
    seconds = sum(entry["seconds"] for entry in timed)
    if not seconds:
        return ""
    waited = sum(entry.get("waited", 0.0) for entry in timed)
    voxels = sum(entry.get("voxels", 0) for entry in timed)
    return f": {waited / seconds:.1%} of all, {voxels / seconds / 1e6:.3g} Mvoxel/s" if voxels else ""


def _plain(axes: Axes, last_step: int) -> None:
    """No frame above and at the right, a light grid, the same steps everywhere."""
    axes.title.set(fontsize=10.5, color=DARK, weight="bold", ha="left", x=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=DARK, labelsize=8.5)
    axes.yaxis.get_offset_text().set_fontsize(8.5)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlim(0, last_step * 1.01)


def _summary(history: History) -> str:
    best = "" if history.best_step is None else f", best validation at {history.best_step}"
    return f"step {history.last_step}{best}"
