"""The log of a training as columns: what its curves, TensorBoard and Prefect's pages are made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOG = "log.jsonl"
Entry = dict[str, Any]
# (steps int64, values float64) of equal length, steps ascending.
Column = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class History:
    """What a training has logged so far, in the order of its steps.

    Attributes:
        entries: lines of the log. A line with `validation` holds the scores of that volume, others one step of the
            optimiser. No step occurs twice, also where a killed training was resumed from an earlier checkpoint.
    """

    entries: tuple[Entry, ...]

    @cached_property
    def steps(self) -> list[Entry]:
        """The lines of the optimiser's steps."""
        return [entry for entry in self.entries if "validation" not in entry]

    @cached_property
    def validations(self) -> list[Entry]:
        """The lines of validation, one for each volume and step."""
        return [entry for entry in self.entries if "validation" in entry]

    @property
    def volumes(self) -> list[str]:
        """Names of the validated volumes, in the order of their first appearance."""
        return list(dict.fromkeys(entry["validation"] for entry in self.validations))

    @property
    def last_step(self) -> int:
        """The latest step of the log, 0 where it is empty."""
        return int(self.entries[-1]["step"]) if self.entries else 0

    @property
    def best_step(self) -> int | None:
        """The step whose validation was the best, None before the first one that said so."""
        return next((int(entry["step"]) for entry in reversed(self.validations) if entry.get("best")), None)

    def column(self, key: str) -> Column:
        """A value of the optimiser's steps, where they have it."""
        return _column(self.steps, key)

    def scores(self, volume: str, key: str) -> Column:
        """A score of one volume, where its lines have it."""
        return _column([entry for entry in self.validations if entry["validation"] == volume], key)

    def waited(self) -> Column:
        """The share 0..1 of each step's time in which the device waited for data."""
        timed = [entry for entry in self.steps if is_number(entry.get("waited")) and entry.get("seconds")]
        return _pair(timed, [min(1.0, entry["waited"] / entry["seconds"]) for entry in timed])


def read_history(output: Path) -> History:
    """The history in the output directory of a training; empty where there is no log yet.

    A line that is no JSON object with a step is passed over: a kill may tear the last one.
    """
    path = output / LOG
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return History(tuple(without_undone_steps(entry for entry in map(_entry, lines) if entry is not None)))


def without_undone_steps(entries: Iterable[Entry]) -> list[Entry]:
    """Entries without those of steps that a resumed training took again: the later ones hold."""
    kept: list[Entry] = []
    for entry in entries:
        step, volume = entry["step"], entry.get("validation")
        while kept and (kept[-1]["step"] > step or (volume is None and kept[-1]["step"] == step)):
            kept.pop()
        if volume is not None:
            _drop_scores(kept, step, volume)
        kept.append(entry)
    return kept


def moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred running mean over `window` values (an odd number), over fewer at the ends; passes over NaN and inf."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    half = window // 2
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    number = counts[last] - counts[first]
    mean: NDArray[np.float64] = np.where(number > 0, (sums[last] - sums[first]) / np.maximum(number, 1), np.nan)
    return mean


def is_number(value: object) -> bool:
    """Whether a value of the log can be drawn; true and false cannot."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _drop_scores(kept: list[Entry], step: int, volume: str) -> None:
    """Take out the scores that a volume got in this step before."""
    at = len(kept) - 1
    while at >= 0 and kept[at]["step"] == step:
        if kept[at].get("validation") == volume:
            del kept[at]
        at -= 1


def _entry(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    step = entry.get("step") if isinstance(entry, dict) else None
    return entry if isinstance(step, int) and not isinstance(step, bool) else None


def _column(entries: list[Entry], key: str) -> Column:
    having = [entry for entry in entries if is_number(entry.get(key))]
    return _pair(having, [float(entry[key]) for entry in having])


def _pair(entries: list[Entry], values: list[float]) -> Column:
    return np.array([entry["step"] for entry in entries], np.int64), np.array(values, np.float64)
