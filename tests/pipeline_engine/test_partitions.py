"""Rows come back out of the disk by ranges of their keys, all of them, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.store import partitions
from pipeline.store.partitions import Partitions, even_bounds


def test_every_row_comes_back_in_its_range_and_in_the_order_in_which_it_went_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "BUFFER_BYTES", 1000)
    random = np.random.default_rng(0)
    keys = random.integers(10, 1000, 5000).astype(np.uint64)
    rows = np.arange(5000)
    with Partitions(tmp_path / "spill", even_bounds(10, 1000, 64), np.int64) as spilled:
        for part in np.array_split(np.arange(5000), 37):
            spilled.append(keys[part], rows[part])
        seen = []
        for each in spilled:
            chosen = (keys >= each.low) & (keys < each.high)
            assert np.array_equal(each.rows, rows[chosen])
            assert np.array_equal(each.keys, keys[chosen])
            seen.append(len(each.rows))
    assert sum(seen) == 5000
    assert not (tmp_path / "spill").exists()


def test_rows_of_several_fields_and_empty_ranges(tmp_path: Path) -> None:
    dtype = np.dtype([("voxels", np.uint64), ("start", np.int64, (3,))])
    rows = np.zeros(2, dtype)
    rows["start"][1] = 7
    with Partitions(tmp_path / "spill", [0, 5, 10, 2**60], dtype) as spilled:
        spilled.append(np.array([2**59, 1], np.uint64), rows)
        low, middle, high = spilled
    assert (len(low.rows), len(middle.rows), len(high.rows)) == (1, 0, 1)
    assert low.rows["start"].tolist() == [[7, 7, 7]]


def test_what_a_killed_process_left_behind_does_not_come_back(tmp_path: Path) -> None:
    left = Partitions(tmp_path / "spill", [0, 10], np.int64)
    left.append(np.array([3]), np.array([3]))
    assert [len(each.rows) for each in left] == [1]
    with Partitions(tmp_path / "spill", [0, 10], np.int64) as fresh:
        assert [len(each.rows) for each in fresh] == [0]


def test_a_key_outside_the_bounds_is_refused(tmp_path: Path) -> None:
    with Partitions(tmp_path / "spill", [5, 10], np.int64) as spilled, pytest.raises(ValueError, match="outside 5"):
        spilled.append(np.array([4]), np.array([0]))


def test_even_bounds_cover_a_range_of_any_length() -> None:
    assert even_bounds(1, 8, 3).tolist() == [1, 4, 7, 8]
    assert even_bounds(1, 1, 3).tolist() == [1, 2]


def test_a_range_with_too_many_rows_is_cut_again_and_loses_none(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    keys = np.concatenate([random.integers(0, 60, 3000), random.integers(0, 2**40, 50), np.full(500, 7)])
    with Partitions(tmp_path / "spill", even_bounds(0, 2**40, 2**38), np.int64, most=100) as spilled:
        spilled.append(keys, np.arange(len(keys)))
        parts = list(spilled)
    assert all(len(part.keys) <= 100 or part.high - part.low == 1 for part in parts)
    assert max(len(part.keys) for part in parts) > 500  # a single key is not cut
    assert [part.low for part in parts[1:]] == [part.high for part in parts[:-1]]
    for part in parts:
        assert np.array_equal(part.rows, np.flatnonzero((keys >= part.low) & (keys < part.high)))
    assert not (tmp_path / "spill").exists()
