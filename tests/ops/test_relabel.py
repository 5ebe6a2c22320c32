from __future__ import annotations

import numpy as np
import pytest

from pipeline.instances.ops.relabel import compact, relabel


def test_each_label_gets_its_id_and_background_stays() -> None:
    labels = np.array([[[0, 1, 2], [3, 2, 0]]], np.uint32)
    ids = relabel(labels, np.array([2**40, 0, 7], np.uint64))
    assert ids.dtype == np.uint64
    assert ids.tolist() == [[[0, 2**40, 0], [7, 0, 0]]]


def test_a_table_of_zeros_gives_zeros() -> None:
    ids = relabel(np.ones((2, 2, 2), np.uint32), np.zeros(1, np.uint64))
    assert ids.dtype == np.uint64
    assert not ids.any()


def test_an_empty_block_with_an_empty_table_stays_empty() -> None:
    assert relabel(np.zeros((2, 3, 4), np.uint32), np.zeros(0, np.uint64)).shape == (2, 3, 4)


def test_a_label_beyond_the_table_is_an_error() -> None:
    with pytest.raises(IndexError):
        relabel(np.full((1, 1, 1), 3, np.uint32), np.ones(2, np.uint64))


def test_compact_numbers_ids_in_ascending_order() -> None:
    local, ids = compact(np.array([[[2**50, 0, 5], [9, 9, 5]]], np.uint64))
    assert local.dtype == np.uint32
    assert ids.dtype == np.uint64
    assert local.tolist() == [[[3, 0, 1], [2, 2, 1]]]
    assert ids.tolist() == [5, 9, 2**50]


@pytest.mark.parametrize("least", [0, 1])
def test_relabel_undoes_compact(least: int) -> None:
    labels = np.random.default_rng(6).integers(least, 2**63, (4, 5, 6), dtype=np.uint64)
    labels = np.where(labels % 3 == 0, labels[0, 0, 0], labels)
    assert np.array_equal(relabel(*compact(labels)), labels)


def test_compact_takes_a_view_that_is_not_contiguous() -> None:
    labels = np.random.default_rng(7).integers(0, 4, (6, 6, 6), dtype=np.uint64)[1:-1, 1:-1, 1:-1]
    assert np.array_equal(relabel(*compact(labels)), labels)


def test_compact_of_background_has_no_ids() -> None:
    local, ids = compact(np.zeros((2, 3, 4), np.uint64))
    assert not local.any()
    assert ids.shape == (0,)
