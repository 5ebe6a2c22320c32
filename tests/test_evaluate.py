"""Scores against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.evaluation import Contingency, average_precision, best_iou, foreground
from pipeline.evaluation.blockwise import contingency, evaluate
from pipeline.geometry import Box, Vec3
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume


def row(**lengths: int) -> NDArray[np.uint64]:
    """Runs of labels on a line: ``row(a3=10)`` is ten voxels of label 3; the letter only keeps the names apart."""
    return np.concatenate([np.full(length, int(name[1:]), np.uint64) for name, length in lengths.items()])


def table(prediction: NDArray[Any], truth: NDArray[Any]) -> Contingency:
    return Contingency.of(prediction, truth)


def stored(folder: Path, name: str, array: NDArray[Any]) -> Volume:
    shape: Vec3 = (array.shape[0], array.shape[1], array.shape[2])
    url = str(folder / name)
    ome_zarr.create(url, shape, shape, (8, 8, 8), str(array.dtype), (10.0, 10.0, 10.0))
    volume = open_volume(url)
    volume.write(volume.box, array)
    return volume


def test_a_perfect_prediction_scores_one_whatever_its_ids() -> None:
    truth = row(a0=5, a1=10, b0=2, a2=20)
    same = table(row(a0=5, a77=10, b0=2, a3=20), truth)
    assert average_precision(same, 0.5) == average_precision(same, 0.75) == 1.0
    assert foreground(same) == {"iou": 1.0, "dice": 1.0}


def test_an_iou_of_exactly_three_quarters_is_a_hit_at_75() -> None:
    exact = table(row(a1=75, a0=25), row(a1=100))
    assert best_iou(exact).tolist() == [0.75]
    assert average_precision(exact, 0.75) == pytest.approx(1.0)
    below = table(row(a1=7499, a0=2501), row(a1=10000))
    assert average_precision(below, 0.75) == 0.0


def test_an_over_merged_pair_is_one_false_positive() -> None:
    # Truth 60 and 40 voxels, a third of 30 found exactly; the merged one has IoU 0.6 with the first.
    merged = table(row(a1=100, b0=5, a2=30), row(a1=60, a2=40, b0=5, a3=30))
    assert best_iou(merged).tolist() == [0.6, 1.0]
    # At .5 both predictions hit: recall 2/3, precision 1, so 67 of the 101 recalls (0 to .66).
    assert average_precision(merged, 0.5) == pytest.approx(67 / 101)
    # At .75 the big one comes first and misses: precision 1/2 up to recall 1/3: 34 recalls (0 to .33).
    assert average_precision(merged, 0.75) == pytest.approx(0.5 * 34 / 101)


def test_a_split_instance_is_missed_and_its_halves_are_false_positives() -> None:
    split = table(row(a1=50, a2=50, b0=5, a3=20), row(a1=100, b0=5, a2=20))
    # IoU of each half is exactly .5: both count as hits at .5 (the reference enforces no one-to-one match).
    assert best_iou(split).tolist() == [0.5, 0.5, 1.0]
    assert average_precision(split, 0.5) == pytest.approx(1.0)
    # At .75: miss, miss, hit: precision 1/3 up to recall 1/2: 51 recalls.
    assert average_precision(split, 0.75) == pytest.approx(51 / 101 / 3)


def test_small_false_positives_come_last_and_cost_nothing() -> None:
    small_extra = table(row(a1=50, a0=50, a9=5), row(a1=50, a0=55))
    big_extra = table(row(a1=50, a0=50, a9=55), row(a1=50, a0=105))
    assert average_precision(small_extra, 0.75) == pytest.approx(1.0)
    assert average_precision(big_extra, 0.75) == pytest.approx(0.5)


def test_missed_instances_cost_recall() -> None:
    missed = table(row(a1=10, a0=30), row(a1=10, a2=10, a3=10, a4=10))
    assert average_precision(missed, 0.75) == pytest.approx(26 / 101)  # recalls 0 to .25
    assert foreground(missed) == {"iou": 0.25, "dice": 0.4}


def test_of_predictions_of_one_size_the_lower_id_ranks_first() -> None:
    truth = row(a5=10, a0=10)
    hit_first = table(row(a1=10, a2=10), truth)
    hit_last = table(row(a2=10, a1=10), truth)
    assert average_precision(hit_first, 0.5) == pytest.approx(1.0)
    assert average_precision(hit_last, 0.5) == pytest.approx(0.5)


def test_equal_overlaps_with_two_truths_give_one_iou() -> None:
    assert best_iou(table(row(a1=20), row(a1=10, a2=10))).tolist() == [0.5]


def test_ids_above_the_reach_of_floats_stay_apart() -> None:
    huge = 2**63
    prediction = np.array([huge + 1] * 4 + [huge] * 3, np.uint64)
    truth = np.array([2**53 + 1] * 4 + [2**53] * 3, np.uint64)
    both = table(prediction, truth)
    assert both.prediction.tolist() == [huge, huge + 1]
    assert best_iou(both).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("predicted", "true", "overlap", "precision"),
    [(0, 0, 1.0, 1.0), (0, 3, 0.0, 0.0), (3, 0, 0.0, 0.0)],
)
def test_empty_volumes_have_defined_scores(predicted: int, true: int, overlap: float, precision: float) -> None:
    empty = table(np.full(9, predicted, np.uint32), np.full(9, true, np.uint32))
    assert foreground(empty) == {"iou": overlap, "dice": overlap}
    assert average_precision(empty, 0.5) == average_precision(empty, 0.75) == precision


labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=120)


@settings(deadline=None)
@given(pairs=labels, cut=st.integers(0, 120))
def test_merged_parts_equal_the_whole(pairs: list[tuple[int, int]], cut: int) -> None:
    prediction, truth = np.array(pairs, np.uint64).T
    whole = Contingency.of(prediction, truth)
    parts = Contingency.merged(
        (Contingency.of(prediction[cut:], truth[cut:]), Contingency.of(prediction[:cut], truth[:cut]))
    )
    for name in ("prediction", "truth", "voxels"):
        assert getattr(whole, name).tolist() == getattr(parts, name).tolist()
    assert int(whole.voxels.sum()) == len(pairs)


@settings(deadline=None)
@given(pairs=labels, threshold=st.sampled_from([0.25, 0.5, 0.75]))
def test_precision_equals_a_plain_loop_over_the_definition(pairs: list[tuple[int, int]], threshold: float) -> None:
    prediction, truth = np.array(pairs, np.uint64).T
    expected = plain_average_precision(prediction, truth, threshold)
    assert average_precision(Contingency.of(prediction, truth), threshold) == pytest.approx(expected)


def plain_average_precision(prediction: NDArray[Any], truth: NDArray[Any], threshold: float) -> float:
    true = [t for t in np.unique(truth) if t]
    found = sorted((p for p in np.unique(prediction) if p), key=lambda p: (-(prediction == p).sum(), p))
    if not true or not found:
        return float(not true and not found)
    hits, curve = 0, []
    for rank, p in enumerate(found, 1):
        mask = prediction == p
        hits += max((mask & (truth == t)).sum() / (mask | (truth == t)).sum() for t in true) >= threshold
        curve.append((hits / len(true), hits / rank))
    return float(np.mean([max((y for x, y in curve if x >= r), default=0.0) for r in np.linspace(0, 1, 101)]))


def test_blocks_of_any_shape_give_the_same_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    truth = np.kron(rng.integers(0, 5, (4, 5, 6)), np.ones((5, 5, 5))).astype(np.uint64) * np.uint64(2**60)
    prediction = np.where(rng.random(truth.shape) < 0.9, np.roll(truth, 1, 2) // np.uint64(2**58), 0).astype(np.uint32)
    predicted, true = stored(tmp_path, "p", prediction), stored(tmp_path, "t", truth)
    seen: list[tuple[int, int]] = []
    at_once = evaluate(predicted, true, progress=lambda done, of: seen.append((done, of)))
    assert evaluate(predicted, true, block=(7, 11, 13)) == at_once
    assert evaluate(predicted, true, block=(1, 25, 30)) == at_once
    assert at_once["instances_truth"] == at_once["instances_predicted"] == 4
    assert 0.5 < at_once["iou"] < 0.9
    assert seen == [(1, 1)]
    assert int(contingency(predicted, true, (8, 8, 8)).voxels.sum()) == truth.size


def test_masks_of_bool_and_bytes_are_labels_too(tmp_path: Path) -> None:
    mask = np.zeros((8, 8, 8), np.bool_)
    mask[2:6, 2:6, 2:6] = True
    scores = evaluate(stored(tmp_path, "p", mask), stored(tmp_path, "t", mask.astype(np.uint8) * 255))
    assert scores == {
        "iou": 1.0,
        "dice": 1.0,
        "ap50_95": pytest.approx(1.0),
        "ap50": pytest.approx(1.0),
        "ap75": pytest.approx(1.0),
        "ap75_small": pytest.approx(1.0),
        "ap75_medium": -1.0,
        "ap75_large": -1.0,
        "voi_split": 0.0,
        "voi_merge": 0.0,
        "adapted_rand": 0.0,
        "instances_predicted": 1,
        "instances_truth": 1,
    }


def test_volumes_of_different_shapes_are_refused_naming_both(tmp_path: Path) -> None:
    a, b = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 9), np.uint8)
    with pytest.raises(BadInput, match=r"\(8, 8, 8\).*\(8, 8, 9\).*must have one shape"):
        evaluate(stored(tmp_path, "a", a), stored(tmp_path, "b", b))


def test_a_probability_map_is_refused(tmp_path: Path) -> None:
    volume = stored(tmp_path, "p", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(BadInput, match=r"labels must be whole numbers.*float32.*Threshold"):
        evaluate(volume, stored(tmp_path, "t", np.zeros((8, 8, 8), np.uint8)))


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    volume = stored(tmp_path, "p", np.full((8, 8, 8), -1, np.int32))
    with pytest.raises(BadInput, match="the value -1"):
        evaluate(volume, stored(tmp_path, "t", np.zeros((8, 8, 8), np.uint8)))


def test_a_cropped_volume_is_compared_with_its_crop(tmp_path: Path) -> None:
    array = np.arange(8**3, dtype=np.uint32).reshape(8, 8, 8)
    volume = stored(tmp_path, "p", array)
    crop = volume.cropped(Box((2, 2, 2), (6, 6, 6)))
    assert evaluate(crop, stored(tmp_path, "t", array[2:6, 2:6, 2:6].copy()))["iou"] == 1.0
