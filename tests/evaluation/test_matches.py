"""The table of what was compared with what, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipeline.errors import BadInput
from pipeline.evaluation import Contingency
from pipeline.evaluation.matches import match_rows, require_ending, write_matches
from pipeline.evaluation.scores import Scoring

HUGE = 2**63 + 5
SMALL_UP_TO_TEN = Scoring((10, 20))


def three_rows() -> Contingency:
    """Prediction HUGE: 12 voxels in truth 2 of 12, 3 in truth 1 of 4; prediction 7 touches none; truth 3 is missed."""
    prediction = np.array([HUGE, HUGE, 0, 7, 0], np.uint64)
    truth = np.array([2, 1, 1, 0, 3], np.uint64)
    counts = np.array([12, 3, 1, 2, 5])
    return Contingency.of(np.repeat(prediction, counts), np.repeat(truth, counts))


def test_a_row_says_what_a_prediction_is_compared_with_in_each_range_of_sizes() -> None:
    first = match_rows(three_rows(), SMALL_UP_TO_TEN).to_pylist()[0]
    assert first == {
        "kind": "prediction",
        "prediction": HUGE,
        "prediction_voxels": 15,
        "all_truth": 2,
        "all_truth_voxels": 12,
        "all_iou": 12 / 15,
        "small_truth": 1,
        "small_truth_voxels": 4,
        "small_iou": 3 / 16,
        "medium_truth": 2,
        "medium_truth_voxels": 12,
        "medium_iou": 12 / 15,
        "large_truth": 2,
        "large_truth_voxels": 12,
        "large_iou": 12 / 15,
    }


def test_predictions_come_as_they_rank_and_missed_truths_after_them_with_their_best_prediction() -> None:
    rows = match_rows(three_rows(), SMALL_UP_TO_TEN).to_pylist()
    short = [(r["kind"], r["prediction"], r["prediction_voxels"], r["all_truth"], r["all_iou"]) for r in rows]
    assert short == [
        ("prediction", HUGE, 15, 2, 12 / 15),
        ("prediction", 7, 2, 0, 0.0),
        ("missed", HUGE, 15, 1, 3 / 16),
        ("missed", 0, 0, 3, 0.0),
    ]
    assert rows[2]["small_truth"] is None


def test_dropped_truths_are_in_no_row() -> None:
    rows = match_rows(three_rows(), Scoring((10, 20), ignore_below=5)).to_pylist()
    assert [(row["kind"], row["all_truth"]) for row in rows] == [("prediction", 2), ("prediction", 0), ("missed", 3)]
    assert rows[0]["small_truth"] == 2  # nothing small is touched now: the best of all


def test_csv_and_parquet_hold_the_same_rows_with_exact_ids(tmp_path: Path) -> None:
    for name in ("new/m.csv", "m.parquet"):
        write_matches(tmp_path / name, three_rows(), SMALL_UP_TO_TEN)
    parquet = pyarrow.parquet.read_table(tmp_path / "m.parquet")
    ids = pyarrow.csv.ConvertOptions(column_types={"prediction": pyarrow.uint64()})
    csv = pyarrow.csv.read_csv(tmp_path / "new" / "m.csv", convert_options=ids)
    assert csv.to_pylist() == parquet.to_pylist() == match_rows(three_rows(), SMALL_UP_TO_TEN).to_pylist()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["m.parquet"]


def test_empty_volumes_give_a_table_without_rows(tmp_path: Path) -> None:
    write_matches(tmp_path / "m.parquet", Contingency.merged(()), SMALL_UP_TO_TEN)
    assert pyarrow.parquet.read_table(tmp_path / "m.parquet").num_rows == 0


def test_another_ending_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--matches m\.xlsx: the file ends in .parquet or .csv.*m\.csv"):
        require_ending(Path("m.xlsx"))
