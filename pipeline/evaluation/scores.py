"""All scores of a segmentation, and the published ways to count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.evaluation.agreement import agreement
from pipeline.evaluation.overlaps import Contingency, foreground
from pipeline.evaluation.precision import ALL, THRESHOLDS, Ranked, SizeRange, mean_precision

Preset = Literal["mitoem", "challenge2021"]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How instances are counted.

    Attributes:
        limits: small instances have at most the first, medium ones at most the second number of voxels.
        ignore_below: true instances of fewer voxels are background, for every score; a prediction there is false.
    """

    limits: tuple[float, float] = (5e3, 1.5e4)
    ignore_below: int = 0

    @property
    def ranges(self) -> dict[str, SizeRange]:
        """``all``, ``small``, ``medium`` and ``large``."""
        small, medium = self.limits
        return {
            "all": ALL,
            "small": SizeRange(high=small),
            "medium": SizeRange(small, medium),
            "large": SizeRange(low=medium),
        }


# mitoem: the master branch of ygCoconut/mAP_3Dvolume; challenge2021: the copy in the challenge's own repository
PRESETS: dict[Preset, Scoring] = {"mitoem": Scoring(), "challenge2021": Scoring((5e3, 3e4), 2000)}


def instance_scores(table: Contingency, scoring: Scoring) -> dict[str, float]:
    """Everything ``teramito evaluate`` prints of instances, in its order.

    ``iou``, ``dice``: of all voxels above 0. ``ap...``: see :mod:`pipeline.evaluation.precision`; the three of a range
    of sizes are -1 where it holds no true instance. ``voi_split``, ``voi_merge``, ``adapted_rand``: see
    :func:`pipeline.evaluation.agreement.agreement`. ``instances_predicted``, ``instances_truth``: numbers of ids.
    """
    table = table.without_small_truth(scoring.ignore_below)
    ranked = Ranked(table)
    ranges = scoring.ranges
    by_size = {f"ap75_{name}": mean_precision(ranked, (0.75,), sizes) for name, sizes in ranges.items()}
    return {
        **foreground(table),
        "ap50_95": mean_precision(ranked, THRESHOLDS),
        "ap50": mean_precision(ranked, (0.5,)),
        "ap75": by_size.pop("ap75_all"),
        **by_size,
        **agreement(table),
        "instances_predicted": len(ranked.ids),
        "instances_truth": len(ranked.true_ids),
    }
