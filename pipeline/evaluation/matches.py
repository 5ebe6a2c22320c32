"""Which instance was compared with which: one row an instance, as Parquet or CSV.

Columns, the same facts as the reference tool prints:

=====================  ==============================================================================================
kind                   ``prediction``; or ``missed``: a true instance with which no prediction was compared
prediction             id; of a missed true instance the prediction that fits it best, 0 if none touches it
prediction_voxels      its voxels
RANGE_truth            for RANGE all, small, medium, large: the true instance the prediction is compared with when
                       instances of that range are scored, 0 if it touches none
RANGE_truth_voxels     its voxels
RANGE_iou              intersection over union of the two, 0 if it touches none
=====================  ==============================================================================================

Predictions come first, as they are ranked (voxels falling, then id); missed true instances follow by id, and have the
columns of ``all`` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.overlaps import Contingency
from pipeline.evaluation.precision import Matches, Ranked
from pipeline.evaluation.scores import Scoring

ENDINGS = (".parquet", ".csv")
_ROWS = 2**18  # written at once


def match_rows(table: Contingency, scoring: Scoring) -> Any:
    """The rows as a pyarrow table; see the module for its columns."""
    import pyarrow as pa

    ranked = Ranked(table.without_small_truth(scoring.ignore_below))
    by_range = {name: ranked.matched(sizes) for name, sizes in scoring.ranges.items()}
    missed, compared = _missed(ranked, by_range["all"])
    columns: dict[str, Any] = {
        "kind": pa.array(["prediction"] * len(ranked.ids) + ["missed"] * len(missed), pa.string()),
        "prediction": np.concatenate([ranked.ids, compared.truth]),
        "prediction_voxels": np.concatenate([ranked.voxels, compared.truth_voxels]),
    }
    truth = {"all": Matches(ranked.true_ids[missed], ranked.true_voxels[missed], compared.iou)}
    for name, matches in by_range.items():
        columns |= {f"{name}_{fact}": column for fact, column in _range_columns(matches, truth.get(name), len(missed))}
    return pa.table(columns)


def write_matches(path: Path, table: Contingency, scoring: Scoring) -> None:
    """Store the rows, whole or not at all; the format is that of the file's ending."""
    from pyarrow import csv, parquet

    rows = match_rows(table, scoring)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".csv":
        csv.write_csv(rows, partial)
    else:
        parquet.write_table(rows, partial, row_group_size=_ROWS)
    partial.replace(path)


def require_ending(path: Path) -> None:
    """Refuse a file that is neither Parquet nor CSV.

    Raises:
        BadInput: neither ``.parquet`` nor ``.csv``.
    """
    if path.suffix not in ENDINGS:
        raise BadInput(
            f"--matches {path}",
            "the file ends in .parquet or .csv",
            "its ending says how it is written",
            f"For example {path.with_suffix('.csv')}.",
        )


def _missed(ranked: Ranked, matches: Matches) -> tuple[Any, Matches]:
    """Places of the true instances nothing was compared with; for each the prediction that fits best, as a match."""
    missed = np.flatnonzero(~np.isin(ranked.true_ids, matches.truth))
    best, iou = ranked.best_of_truth()
    predictions = best[missed]
    rising = np.argsort(ranked.ids)
    voxels = np.zeros(len(missed), np.int64)
    touched = predictions > 0
    voxels[touched] = ranked.voxels[rising][np.searchsorted(ranked.ids[rising], predictions[touched])]
    return missed, Matches(predictions, voxels, iou[missed])


def _range_columns(matches: Matches, missed: Matches | None, count: int) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    for fact in ("truth", "truth_voxels", "iou"):
        column = pa.array(getattr(matches, fact))
        rest = pa.nulls(count, column.type) if missed is None else pa.array(getattr(missed, fact))
        yield fact, pa.concat_arrays([column, rest])
