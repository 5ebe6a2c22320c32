"""The outlines of labelled objects in a slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def outlines(labels: NDArray[Any]) -> NDArray[np.float64]:
    """The edges between pixels of different labels, as segments (n, 2, 2) of (row, column) corners."""
    row, column = np.nonzero(labels[1:] != labels[:-1])
    across = np.stack([np.stack([row + 1, column], 1), np.stack([row + 1, column + 1], 1)], 1)
    row, column = np.nonzero(labels[:, 1:] != labels[:, :-1])
    down = np.stack([np.stack([row, column + 1], 1), np.stack([row + 1, column + 1], 1)], 1)
    return np.concatenate([across, down]).astype(np.float64)
