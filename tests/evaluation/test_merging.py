"""Tables of many blocks are added up exactly, in time that grows as their number does."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import Contingency, overlaps

Row = tuple[int, int, int]


def of(rows: Sequence[Row]) -> Contingency:
    columns = np.array(rows, np.uint64).reshape(-1, 3)
    counts = columns[:, 2].astype(np.int64)
    return Contingency.of(np.repeat(columns[:, 0], counts), np.repeat(columns[:, 1], counts))


ids = st.sampled_from([0, 1, 2, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 + 1])
table = st.lists(st.tuples(ids, ids, st.integers(1, 5)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(tables=st.lists(table, max_size=12), batch=st.sampled_from([1, 3, 10, 2**16]))
def test_tables_in_any_number_give_the_sums_of_a_dictionary(tables: list[list[Row]], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(overlaps, "_BATCH_ROWS", batch)
        merged = Contingency.merged(map(of, tables))
    expected: dict[tuple[int, int], int] = {}
    for p, t, n in (row for rows in tables for row in rows):
        expected[p, t] = expected.get((p, t), 0) + n
    found = zip(merged.prediction.tolist(), merged.truth.tolist(), merged.voxels.tolist(), strict=True)
    assert list(found) == [(*pair, expected[pair]) for pair in sorted(expected)]


def test_adding_up_a_thousand_tables_sorts_each_row_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlaps, "_BATCH_ROWS", 16)
    sorted_rows, held = 0, []
    summed = overlaps._summed

    def counted(prediction: overlaps.Ids, truth: overlaps.Ids, voxels: overlaps.Counts) -> Contingency:
        nonlocal sorted_rows
        sorted_rows += len(voxels)
        held.append(len(voxels))
        return summed(prediction, truth, voxels)

    tables = [of([(8 * block + row + 1, 1, 1) for row in range(8)]) for block in range(1000)]
    monkeypatch.setattr(overlaps, "_summed", counted)
    assert len(Contingency.merged(tables)) == 8000
    assert sorted_rows <= 2 * 8000 * log2(8000)  # one after another: 8000 * 1000 / 2
    assert max(held) <= 8000


def test_dropping_small_truths_joins_their_rows_with_the_background() -> None:
    dropped = of([(1, 0, 3), (1, 5, 2), (2, 6, 4), (0, 6, 1)]).without_small_truth(3)
    assert (dropped.prediction.tolist(), dropped.truth.tolist(), dropped.voxels.tolist()) == (
        [0, 1, 2],
        [6, 0, 6],
        [1, 5, 4],
    )


def test_the_background_of_both_is_left_out_and_put_back() -> None:
    whole = of([(0, 0, 30), (1, 1, 2), (0, 4, 1)])
    inside = whole.without_background()
    assert inside.voxels.tolist() == [1, 2]
    assert inside.with_background(33).voxels.tolist() == whole.voxels.tolist()
    assert inside.with_background(3).voxels.tolist() == [1, 2]
