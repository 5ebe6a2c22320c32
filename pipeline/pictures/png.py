"""Figures as PNG files, by matplotlib's object interface only: no window, no global state."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
MARGINS = (0.004, 0.006, 0.992, 0.982)  # the part of a figure that is drawn on: left, bottom, width, height


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure; whoever reads the file at any moment finds a whole picture.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return replace(path, content.getvalue())


def replace(path: Path, content: bytes) -> Path:
    """Write a file beside and rename it; nothing is left of one that could not be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
