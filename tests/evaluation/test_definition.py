"""Average precision against the published definition: worked by hand, and by a slow loop over its steps."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.evaluation import Contingency, average_precision
from pipeline.evaluation.precision import ALL, THRESHOLDS, Ranked, SizeRange, mean_precision
from pipeline.evaluation.scores import PRESETS, Scoring, instance_scores

Row = tuple[int, int, int]  # prediction, truth, voxels they share
ONE = 1 / (1 + np.spacing(1))  # precision of one hit among one; the reference adds spacing(1) below the line


def table(*rows: Row) -> Contingency:
    return Contingency.of(*arrays(rows))


def arrays(rows: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    p, t, n = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    return np.repeat(p, n.astype(int)), np.repeat(t, n.astype(int))


def ap(rows: Contingency, threshold: float, low: float = 0.0, high: float = inf) -> float:
    return mean_precision(Ranked(rows), (threshold,), SizeRange(low, high))


def test_a_hit_on_a_truth_out_of_the_range_counts_for_nothing() -> None:
    # Prediction 1 (40 voxels) hits truth 1 (40), which is no small one; prediction 2 (6) hits truth 2 (6).
    found = table((1, 1, 40), (2, 2, 6))
    assert ap(found, 0.75, 0, 10) == np.mean([ONE] * 101)
    # Had the first counted as false, precision would be 1/2.


def test_a_prediction_out_of_the_range_that_hits_nothing_is_ignored_and_one_inside_is_false() -> None:
    one, false = (2, 2, 6), 1 / (1 + 1 + np.spacing(1))
    assert ap(table((1, 0, 40), one), 0.75, 0, 10) == np.mean([ONE] * 101)
    assert ap(table((1, 0, 10), one), 0.75, 0, 10) == np.mean([false] * 101)  # 10 voxels are still small: (0, 10]
    assert ap(table((1, 0, 11), one), 0.75, 0, 10) == np.mean([ONE] * 101)


def test_a_prediction_as_small_as_the_lower_limit_is_out_of_the_range() -> None:
    one, false = (3, 3, 12), 1 / 2
    big = (1, 0, 13)  # ranked first
    assert ap(table(one, (2, 0, 10)), 0.75, 10, 20) == np.mean([ONE] * 101)
    assert ap(table(one, big), 0.75, 10, 20) == pytest.approx(false)


def test_the_quirk_a_slight_touch_of_a_truth_in_the_range_makes_a_good_match_out_of_it_false() -> None:
    # Prediction 1 has 10 voxels: 9 in truth 1 of 11 voxels (IoU 9/12), 1 in truth 2 of 5 (IoU 1/14).
    with_touch = table((1, 1, 9), (0, 1, 2), (1, 2, 1), (0, 2, 4))
    without = table((1, 1, 9), (0, 1, 2), (1, 0, 1), (0, 2, 5))
    first = Ranked(with_touch).matched(SizeRange(0, 10))
    assert (first.truth.tolist(), first.iou.tolist()) == ([2], [1 / 14])
    second = Ranked(without).matched(SizeRange(0, 10))
    assert (second.truth.tolist(), second.iou.tolist()) == ([1], [9 / 12])
    # One hit more shows it: prediction 3 finds truth 3 (4 voxels), behind a false positive or behind nothing.
    recall_half = 51 / 101  # recalls 0 to .5 of the two small truths
    assert ap(Contingency.merged((with_touch, table((3, 3, 4)))), 0.75, 0, 10) == pytest.approx(recall_half / 2)
    assert ap(Contingency.merged((without, table((3, 3, 4)))), 0.75, 0, 10) == pytest.approx(recall_half)


def test_where_no_truth_is_in_the_range_the_score_is_minus_one_as_in_the_reference() -> None:
    found = table((1, 1, 40))
    assert ap(found, 0.75, 0, 10) == ap(found, 0.75, 40, inf) == -1.0
    assert ap(found, 0.75, 39, 40) == np.mean([ONE] * 101)


def test_where_every_prediction_is_ignored_the_score_is_zero() -> None:
    assert ap(table((1, 1, 40), (0, 2, 5)), 0.5, 0, 10) == 0.0


def test_of_equal_overlaps_the_lowest_id_is_the_match() -> None:
    matches = Ranked(table((1, 9, 10), (1, 4, 10), (1, 7, 10))).matched()
    assert (matches.truth.tolist(), matches.iou.tolist()) == ([4], [10 / 30])
    in_range = Ranked(table((1, 4, 8), (1, 7, 5), (1, 9, 5))).matched(SizeRange(0, 5))
    assert (in_range.truth.tolist(), in_range.truth_voxels.tolist()) == ([7], [5])


def test_a_truth_out_of_the_range_does_not_take_an_equal_overlap_from_one_inside() -> None:
    # Prediction 1 has 20 voxels: 4 in truth 3 of 12 (IoU 4/28), 3 in truth 8 of 4 (IoU 3/21): both 1/7.
    found = Ranked(table((1, 0, 13), (1, 3, 4), (0, 3, 8), (1, 8, 3), (0, 8, 1)))
    assert found.matched().truth.tolist() == [3]
    inside = found.matched(SizeRange(0, 10))
    assert (inside.truth.tolist(), inside.truth_voxels.tolist(), inside.iou.tolist()) == ([8], [4], [1 / 7])


def test_one_truth_may_be_hit_twice_at_one_half() -> None:
    assert ap(table((1, 1, 10), (2, 1, 10)), 0.5) == np.mean([ONE, *[2 / (2 + np.spacing(1))] * 100])


def test_a_hit_at_every_threshold_it_equals() -> None:
    for k, threshold in zip(range(10, 20), THRESHOLDS, strict=True):
        exact, below = table((1, 1, k), (0, 1, 20 - k)), table((1, 1, 10**4 * k - 1), (0, 1, 10**4 * (20 - k) + 1))
        assert average_precision(exact, threshold) == np.mean([ONE] * 101)
        assert average_precision(below, threshold) == 0.0


def test_mean_precision_is_over_all_ten_thresholds() -> None:
    # IoU 0.7 exactly: hits at .50 .55 .60 .65 .70, not at the five above.
    scores = instance_scores(table((1, 1, 7), (0, 1, 3)), PRESETS["mitoem"])
    assert scores["ap50_95"] == np.mean([[ONE] * 101] * 5 + [[0.0] * 101] * 5)


def test_the_presets_split_where_the_two_published_tools_do() -> None:
    found = table(*((k, k, size) for k, size in enumerate((1999, 2000, 5000, 5001, 15000, 15001, 30000, 30001), 1)))
    master, challenge = (PRESETS[name] for name in ("mitoem", "challenge2021"))
    assert (master.limits, master.ignore_below) == ((5e3, 1.5e4), 0)
    assert (challenge.limits, challenge.ignore_below) == ((5e3, 3e4), 2000)
    sizes = Ranked(found).true_voxels
    counts = {name: int(held.holds(sizes).sum()) for name, held in master.ranges.items()}
    assert counts == {"all": 8, "small": 3, "medium": 2, "large": 3}
    kept = Ranked(found.without_small_truth(challenge.ignore_below)).true_voxels
    counts = {name: int(held.holds(kept).sum()) for name, held in challenge.ranges.items()}
    assert counts == {"all": 7, "small": 2, "medium": 4, "large": 1}


def test_a_prediction_over_a_dropped_truth_is_false_and_not_ignored() -> None:
    found = table((1, 1, 1999), (2, 2, 2000))
    dropped = instance_scores(found, PRESETS["challenge2021"])
    assert dropped["ap75"] == np.mean([ONE] * 101)  # the false one is the smaller and comes last
    assert (dropped["instances_predicted"], dropped["instances_truth"]) == (2, 1)
    assert dropped["iou"] == 2000 / 3999
    found = table((1, 1, 1999), (1, 0, 2), (2, 2, 2000))  # now 2001 voxels: it comes first
    assert instance_scores(found, PRESETS["challenge2021"])["ap75"] == np.mean([1 / (2 + np.spacing(1))] * 101)
    assert instance_scores(found, Scoring((5e3, 3e4)))["ap75"] == np.mean([ONE] * 51 + [2 / (2 + np.spacing(1))] * 50)


def test_equal_sizes_rank_by_id_whatever_they_hit() -> None:
    assert average_precision(table((2**60, 5, 10), (2**60 + 1, 0, 10)), 0.5) == np.mean([ONE] * 101)
    assert average_precision(table((2**60 + 1, 5, 10), (2**60, 0, 10)), 0.5) == np.mean([1 / (2 + np.spacing(1))] * 101)


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 12)), min_size=1, max_size=12)
diagonal = st.lists(st.tuples(st.integers(1, 5), st.integers(4, 30)).map(lambda one: (one[0], *one)), max_size=5)


@settings(deadline=None, max_examples=80)
@given(rows=rows, hits=diagonal, limits=st.sampled_from([(5, 15), (3, 8), (10, 40)]), below=st.sampled_from([0, 6, 12]))
def test_every_score_equals_the_definition_to_the_last_digit(
    rows: list[Row], hits: list[Row], limits: tuple[int, int], below: int
) -> None:
    prediction, truth = arrays([*rows, *hits])
    scores = instance_scores(Contingency.of(prediction, truth), Scoring(limits, below))
    truth = without_crumbs(truth, below)
    small, medium = limits
    ranges = {"": (0, 10**9), "_small": (0, small), "_medium": (small, medium), "_large": (medium, 10**9)}
    for name, (low, high) in ranges.items():
        assert scores[f"ap75{name}"] == slow(prediction, truth, [0.75], low, high, name == "")
    assert scores["ap50"] == slow(prediction, truth, [0.5], 0, 10**9, True)
    assert scores["ap50_95"] == slow(prediction, truth, [k / 20 for k in range(10, 20)], 0, 10**9, True)
    ranked = Ranked(Contingency.of(prediction, truth))
    for threshold in THRESHOLDS:  # every range at every threshold
        for low, high in list(ranges.values())[1:]:
            sizes = SizeRange(low, high)
            assert mean_precision(ranked, (threshold,), sizes) == slow(prediction, truth, [threshold], low, high, False)
    assert scores["ap50"] == mean_precision(ranked, (0.5,), ALL)


def without_crumbs(truth: NDArray[np.uint64], below: int) -> NDArray[np.uint64]:
    kept = truth.copy()
    for one in np.unique(truth):
        if np.count_nonzero(truth == one) < below:
            kept[truth == one] = 0
    return kept


def slow(
    prediction: NDArray[np.uint64], truth: NDArray[np.uint64], thresholds: list[float], low: int, high: int, every: bool
) -> float:
    """Average precision by the numbered steps of the published definition, one voxel mask after another."""
    sizes = {int(p): int((prediction == p).sum()) for p in np.unique(prediction) if p}
    true = {int(t): int((truth == t).sum()) for t in np.unique(truth) if t}
    positives = sum(low < size <= high for size in true.values())
    if positives == 0:  # step 5; of all sizes our own rule
        return float(not sizes) if every else -1.0
    events: list[tuple[float, bool, bool]] = []
    for p in sorted(sizes, key=lambda one: (-sizes[one], one)):  # step 1
        ious = {}
        for t, size in true.items():  # step 2
            shared = int(((prediction == p) & (truth == t)).sum())
            if shared:
                ious[t] = shared / (sizes[p] + size - shared)
        inside = {t: iou for t, iou in ious.items() if low < true[t] <= high}
        pool = inside or ious  # step 3
        best = min(pool, key=lambda t: (-pool[t], t)) if pool else 0
        events.append((pool.get(best, 0.0), best in inside, low < sizes[p] <= high))
    curves = []
    for threshold in thresholds:
        hits = false = 0
        curve = []
        for iou, in_range, own in events:  # step 4
            hits += iou >= threshold and in_range
            false += iou < threshold and own
            curve.append((hits / positives, hits / (hits + false + np.spacing(1))))
        # step 6
        curves.append([max((y for x, y in curve if x >= r), default=0.0) for r in np.linspace(0, 1, 101)])
    return float(np.mean(curves))
