"""Variation of information and adapted Rand error: worked by hand, and against scikit-image."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.evaluation import Contingency
from pipeline.evaluation.agreement import agreement
from pipeline.evaluation.classes import class_scores


def of(prediction: list[int], truth: list[int]) -> dict[str, float]:
    return agreement(Contingency.of(np.array(prediction, np.uint64), np.array(truth, np.uint64)))


def test_a_truth_split_in_halves_costs_one_bit_of_splitting_and_none_of_merging() -> None:
    assert of([1, 1, 2, 2], [7, 7, 7, 7]) == {
        "voi_split": 1.0,
        "voi_merge": 0.0,
        # Pairs of different voxels, ordered: 12 together in the truth, 4 in the prediction, 4 in both: F = 8 / 16.
        "adapted_rand": 0.5,
    }


def test_two_truths_merged_cost_one_bit_of_merging_and_none_of_splitting() -> None:
    assert of([9, 9, 9, 9], [1, 1, 2, 2]) == {"voi_split": 0.0, "voi_merge": 1.0, "adapted_rand": 0.5}


def test_a_mixed_case_by_hand() -> None:
    # Truth 1: 3 voxels in prediction 1 and 1 in 2; truth 2: 2 voxels in prediction 2. Six voxels.
    found = of([1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 2, 2])
    assert found["voi_split"] == pytest.approx((3 * log2(4 / 3) + 1 * log2(4)) / 6)
    assert found["voi_merge"] == pytest.approx((1 * log2(3) + 2 * log2(3 / 2)) / 6)
    # Pairs: in both 6 + 0 + 2 = 8, prediction 6 + 6 = 12, truth 12 + 2 = 14.
    assert found["adapted_rand"] == 1 - 16 / 26


def test_only_voxels_of_true_instances_count_and_the_predicted_background_is_one_segment() -> None:
    assert of([0, 0, 5, 5, 5, 6], [1, 1, 1, 1, 0, 0]) == of([3, 3, 5, 5], [1, 1, 1, 1])


def test_identical_partitions_agree_whatever_their_ids() -> None:
    assert of([5, 5, 9, 0], [2**60, 2**60, 2**53 + 1, 0]) == {"voi_split": 0.0, "voi_merge": 0.0, "adapted_rand": 0.0}


@pytest.mark.parametrize(
    ("prediction", "truth", "rand"),
    [
        ([0, 0, 0], [0, 0, 0], 0.0),
        ([1, 1, 0], [0, 0, 0], 1.0),
        ([0, 0, 0], [1, 1, 1], 0.0),
        ([1, 2, 3], [4, 5, 6], 0.0),
    ],
)
def test_empty_volumes_and_single_voxels_have_defined_scores(
    prediction: list[int], truth: list[int], rand: float
) -> None:
    assert of(prediction, truth) == {"voi_split": 0.0, "voi_merge": 0.0, "adapted_rand": rand}


def test_the_pairs_of_a_teravoxel_are_counted_exactly() -> None:
    table = Contingency(np.array([1, 2], np.uint64), np.array([1, 1], np.uint64), np.array([2**39, 2**39], np.int64))
    assert agreement(table)["adapted_rand"] == 1 - 2 * (2**79 - 2**40) / ((2**79 - 2**40) + (2**80 - 2**40))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=60))
def test_both_equal_those_of_scikit_image(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    prediction, truth = np.array(pairs).T
    found = of(prediction.tolist(), truth.tolist())
    kept = truth > 0
    if not kept.any():
        return
    split, merge = metrics.variation_of_information(truth[kept], prediction[kept])
    assert found["voi_split"] == pytest.approx(split, abs=1e-9)
    assert found["voi_merge"] == pytest.approx(merge, abs=1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = metrics.adapted_rand_error(truth, prediction)[0]
    if np.isfinite(error):  # it has none where no two voxels are together in both
        assert found["adapted_rand"] == pytest.approx(error, abs=1e-9)


def test_classes_have_an_iou_each_and_a_mean_with_the_background() -> None:
    table = Contingency.of(np.array([0, 0, 1, 1, 2, 7]), np.array([0, 1, 1, 1, 2, 2]))
    scores = class_scores(table)
    assert scores == {
        "miou": pytest.approx((1 / 2 + 2 / 3 + 1 / 2 + 0) / 4),
        "iou_class_0": 1 / 2,
        "iou_class_1": 2 / 3,
        "iou_class_2": 1 / 2,
        "iou_class_7": 0.0,
    }


def test_instances_taken_for_classes_are_refused() -> None:
    ids = np.arange(300)
    with pytest.raises(BadInput, match=r"300 different values.*at most 256 classes.*Leave --classes away"):
        class_scores(Contingency.of(ids, ids))
