"""Choosing how instances are made, on a labelled part of a run's volume, without running the network again.

T1, T2, the mask, growth and the smallest size are searched together: first the mask by its IoU, then a coarse grid,
then steps along each setting from the best of it and from the present setting, down to the finest. Sizes cost nothing:
they follow from the voxels of each instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import Contingency, foreground
from pipeline.evaluation.mask import mask_ious
from pipeline.evaluation.precision import THRESHOLDS, Ranked, mean_precision
from pipeline.geometry import FloatVec3
from pipeline.instances.ops.whole import whole_labels, whole_seeds
from pipeline.instances.plan import InstancePlan
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.model.spec import ModelSpec

_Map = NDArray[np.uint8]
Scores = dict[str, float]

_SEMANTIC = (*(round(0.05 * k, 2) for k in range(4, 19)), 0.92, 0.94, 0.96, 0.98)
_BOUNDARY = tuple(round(0.05 * k, 2) for k in range(2, 21))  # below 1.0: nearly everywhere
GROW_NM = (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 100.0, 130.0, 160.0, 200.0, 250.0)
MINIMUM_VOXELS = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
COARSE = {"seed_above": 6, "boundary_below": 5, "grow_nm": 3}  # values of each in the coarse grid
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "mean": ("iou", "ap50_95"),
    **{name: (name,) for name in ("iou", "ap50", "ap75", "ap50_95")},
}
"""By name, the scores whose mean is maximised. AP alone is coarse where there are few objects."""
FEW_OBJECTS = 20
REMEMBERED = 3  # labels of seeds, 4 bytes a voxel each


@dataclass(frozen=True)
class LabelledPart:
    """The part with truth: uint8 maps and instance ids of one shape, z, y, x."""

    semantic: _Map
    boundary: _Map
    truth: NDArray[np.unsignedinteger]
    voxel_size_nm: FloatVec3


@dataclass(frozen=True, order=True)
class Choice:
    """A point of the search; ``minimum_voxels`` is not part of it, since every size costs the same."""

    seed_above: float
    boundary_below: float
    mask_above: float
    grow_nm: float


@dataclass(frozen=True)
class Candidate:
    """A setting and its scores on the labelled part."""

    choice: Choice
    minimum_voxels: int
    scores: Scores


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        present: the setting before, scored.
        ranked: the best setting of every point tried, best first.
        settings: the best one as settings; ``base`` with what was searched put in.
        warnings: for the user.
    """

    present: Candidate
    ranked: tuple[Candidate, ...]
    settings: InstanceSettings
    warnings: tuple[str, ...]


_Progress = Callable[[int, Candidate], None]


@dataclass
class Search:
    """The points tried so far on one labelled part.

    Args:
        labelled: the part with truth.
        base: the present settings; what is not searched stays as it is there.
        spec: the model that the present settings are completed from.
        by: a key of ``OBJECTIVES``.
        threads: points computed at once.
        progress: called after each point with how many were tried and the best so far.
    """

    labelled: LabelledPart
    base: InstanceSettings
    spec: ModelSpec | None
    by: str = "mean"
    threads: int = 2
    progress: _Progress = lambda tried, best: None
    found: dict[Choice, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock, self._labels = Lock(), dict[tuple[int, int], NDArray[np.uint32]]()
        self.plan = instance_plan(self.base, self.labelled.voxel_size_nm, self.spec)
        thresholds = {name: self._value(name) for name in ("seed_above", "boundary_below", "mask_above")}
        self.present = Choice(**thresholds, grow_nm=self.plan.grow_nm)
        sizes = np.bincount(np.unique(self.labelled.truth[self.labelled.truth > 0], return_inverse=True)[1])
        self.objects, largest = len(sizes), float(np.median(sizes)) if len(sizes) else 0.0
        self.minima = sorted({self.plan.minimum_voxels, *(size for size in MINIMUM_VOXELS if size <= largest)})
        self.axes = self._axes()

    def run(self) -> Tuned:
        """Search; deterministic, whatever the threads."""
        self._try([self.present])
        self._try(self._coarse())
        for start in (self._best(), self.present):
            for step in (2, 1):
                start = self._climbed(start, step)
        ranked = tuple(sorted(self.found.values(), key=self._rank, reverse=True))
        return Tuned(self._present(), ranked, self.settings_of(ranked[0]), tuple(self._warnings(ranked[0])))

    def score(self, candidate: Candidate) -> float:
        """What is maximised."""
        return float(np.mean([candidate.scores[name] for name in OBJECTIVES[self.by]]))

    def settings_of(self, candidate: Candidate) -> InstanceSettings:
        """A candidate as settings that need no model to complete them."""
        values = self.base.model_dump(exclude_none=True)
        values.pop("minimum_um3", None)
        chosen = candidate.choice
        values |= {name: getattr(chosen, name) for name in ("seed_above", "boundary_below", "mask_above")}
        values |= {"minimum_voxels": candidate.minimum_voxels}
        if self._grows_freely:
            values |= {"grow": "mask", "grow_nm": chosen.grow_nm}
        return InstanceSettings.model_validate(values)

    @property
    def _grows_freely(self) -> bool:
        return self.plan.grow in ("mask", "none")

    def _value(self, name: str) -> float:
        """A present threshold as a probability: as it was given, else the shortest decimal of its uint8 level."""
        given: float | None = getattr(self.base, name)
        level: int = getattr(self.plan, name)
        decimals = (round((level + 0.5) / 255, digits) for digits in (1, 2, 3, 4))
        return given if given is not None else next(value for value in decimals if int(255 * value) == level)

    def _axes(self) -> dict[str, tuple[float, ...]]:
        """The values of each setting, ascending; those that the kind of growth does not use have one."""
        shortest = min(self.labelled.voxel_size_nm)
        reaches = {int(reach / shortest + 1e-6): reach for reach in (*GROW_NM, self.present.grow_nm)}
        mask = self._grows_freely or self.plan.grow == "watershed"
        return {
            "seed_above": _with(_SEMANTIC, self.present.seed_above),
            "boundary_below": _with(_BOUNDARY, self.present.boundary_below),
            "mask_above": _with(_SEMANTIC, self.present.mask_above) if mask else (self.present.mask_above,),
            "grow_nm": tuple(sorted(reaches.values())) if self._grows_freely else (self.present.grow_nm,),
        }

    def _coarse(self) -> list[Choice]:
        """A grid over seeds and growth with the mask of the best IoU."""
        ious = mask_ious(self.labelled.semantic, self.labelled.truth > 0, self.axes["mask_above"])
        mask = max(ious, key=lambda value: ious[value])
        seeds, boundaries, reaches = (_spread(self.axes[name], count) for name, count in COARSE.items())
        above = sorted({mask, *(seed for seed in seeds if seed > mask)})
        return [Choice(seed, boundary, mask, reach) for seed, boundary, reach in product(above, boundaries, reaches)]

    def _climbed(self, start: Choice, step: int) -> Choice:
        """Steps to the best neighbour, as long as one is better."""
        while True:
            self._try(self._neighbours(start, step))
            best = max((start, *self._neighbours(start, step)), key=lambda choice: self._rank(self.found[choice]))
            if best == start:
                return start
            start = best

    def _neighbours(self, choice: Choice, step: int) -> list[Choice]:
        found = []
        for name, values in self.axes.items():
            at = values.index(getattr(choice, name))
            steps = {max(at - step, 0), min(at + step, len(values) - 1)} - {at}
            found += [replace(choice, **{name: values[index]}) for index in sorted(steps)]
        return [other for other in found if other.seed_above >= other.mask_above or len(self.axes["mask_above"]) == 1]

    def _try(self, choices: Iterable[Choice]) -> None:
        fresh = [choice for choice in dict.fromkeys(choices) if choice not in self.found]
        with ThreadPoolExecutor(self.threads) as pool:
            for choice, candidate in zip(fresh, pool.map(self._best_size, fresh), strict=True):
                self.found[choice] = candidate
                self.progress(len(self.found), self.found[self._best()])

    def _best(self) -> Choice:
        return max(self.found.values(), key=self._rank).choice

    def _rank(self, candidate: Candidate) -> tuple[float, float, Choice]:
        """By score; of equal ones the setting nearest to the present one, counted in steps."""
        steps = sum(
            abs(values.index(getattr(candidate.choice, name)) - values.index(getattr(self.present, name))) / len(values)
            for name, values in self.axes.items()
        )
        return round(self.score(candidate), 9), -steps, candidate.choice

    def _best_size(self, choice: Choice) -> Candidate:
        """The point with its best smallest size; of equal ones the nearest to the present one."""
        table = self._table(choice)
        _, sizes = table.prediction_sizes()
        known: dict[int, Scores] = {}  # by the number of instances kept
        candidates = []
        for least in self.minima:
            kept = int(np.count_nonzero(sizes >= least))
            if kept not in known:
                known[kept] = scores_of_candidate(table.without_small_predictions(least))
            candidates.append(Candidate(choice, least, known[kept]))
        present = self.minima.index(self.plan.minimum_voxels)
        steps = {least: abs(number - present) for number, least in enumerate(self.minima)}
        return max(candidates, key=lambda one: (round(self.score(one), 9), -steps[one.minimum_voxels]))

    def _present(self) -> Candidate:
        least = self.plan.minimum_voxels
        return Candidate(
            self.present, least, scores_of_candidate(self._table(self.present).without_small_predictions(least))
        )

    def _table(self, choice: Choice) -> Contingency:
        """Overlaps of all instances, of whatever size, with the truth."""
        settings = self.settings_of(Candidate(choice, 0, {}))
        plan = instance_plan(settings, self.labelled.voxel_size_nm, self.spec)
        # Nothing is dropped yet; and a crop's border is none of the volume's.
        labels = whole_labels(self._seeds(plan), self.labelled.semantic, plan)
        return Contingency.of(labels, self.labelled.truth)

    def _seeds(self, plan: InstancePlan) -> NDArray[np.uint32]:
        """Labels of the seeds; neighbours in the search often have them in common."""
        key = plan.seed_above, plan.boundary_below
        with self._lock:
            if key not in self._labels:
                made = whole_seeds(self.labelled.semantic, self.labelled.boundary, plan)
                self._labels = dict([*self._labels.items(), (key, made)][-REMEMBERED:])
            return self._labels[key]

    def _warnings(self, best: Candidate) -> Iterator[str]:
        if self.objects < FEW_OBJECTS:
            yield (
                f"the labelled part has {self.objects} true instances: each one moves AP by about "
                f"{1 / self.objects:.2f}, so a small gain may be chance. Label more of the volume"
            )
        kept = {"tissue_mask": self.base.tissue_mask is not None, "drop_border": self.base.drop_border}
        if dropping := " and ".join(name for name, given in kept.items() if given):
            yield f"{dropping} of the run: not counted in these scores, kept in what is written"
        ends = {"grow_nm": {0.0}, "boundary_below": {1.0}}  # of what there is, not of the search
        searched: dict[str, Sequence[float]] = {**self.axes, "minimum_voxels": (-1, *self.minima)}
        for name, values in searched.items():
            value = best.minimum_voxels if name == "minimum_voxels" else getattr(best.choice, name)
            if len(values) > 1 and value in {values[0], values[-1]} - ends.get(name, set()):
                yield f"the best {name}, {value:g}, lies on the border of what was searched"


def scores_of_candidate(table: Contingency) -> Scores:
    """``iou``, ``ap50_95``, ``ap50``, ``ap75`` and the number of instances, as ``teramito evaluate`` counts them."""
    ranked = Ranked(table)
    by = {"ap50_95": THRESHOLDS, "ap50": (0.5,), "ap75": (0.75,)}
    return {
        "iou": foreground(table)["iou"],
        **{name: mean_precision(ranked, thresholds) for name, thresholds in by.items()},
        "instances": len(ranked.ids),
    }


def _with(values: Sequence[float], present: float) -> tuple[float, ...]:
    """The values and the present one; a value of its own level makes room for it."""
    others = (value for value in values if int(255 * value) != int(255 * present))
    return tuple(sorted((*others, present)))


def _spread(values: Sequence[float], count: int) -> list[float]:
    """So many of the values at most, evenly, both ends left out where there are more."""
    if len(values) <= count:
        return list(values)
    places = np.linspace(0, len(values) - 1, count + 2)[1:-1].round().astype(int)
    return [values[place] for place in places]
