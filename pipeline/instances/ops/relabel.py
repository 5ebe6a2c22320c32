"""Block-local labels to the ids of a table, and back to local labels for compact storage."""

from __future__ import annotations

from typing import Any, TypeVar

import fastremap
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import vec3
from pipeline.instances.ops.fragments import painted, run_starts, runs

_T = TypeVar("_T", bound=np.generic)


def relabel(labels: NDArray[np.unsignedinteger[Any]], table: NDArray[_T]) -> NDArray[_T]:
    """Replace each local label by its id.

    Args:
        labels: local labels, z, y, x; 0 is background and stays 0.
        table: length n; label i has id ``table[i - 1]``, which may be 0.

    Returns:
        ids of the table's dtype, same shape.

    Raises:
        IndexError: a label is beyond the table.
    """
    found = runs(np.ascontiguousarray(labels))
    return painted(found, table[found.label - 1], vec3(labels.shape))


def narrowed(numbers: NDArray[np.integer[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """The same numbers, none negative, in the narrowest dtype: what is made of them then takes less memory and time."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))), copy=False)


def looked_up(lookup: NDArray[_T], labels: NDArray[np.uint32]) -> NDArray[_T]:
    """``lookup[labels]``, run by run: a quarter of the time for labels of mitochondria (3.6 against 14 ms for 140^3).

    Raises:
        IndexError: a label is beyond the lookup.
    """
    labels = np.ascontiguousarray(labels)
    starts = run_starts(labels)
    values = lookup[labels.reshape(-1)[starts]]
    return np.repeat(values, np.diff(starts, append=labels.size)).reshape(labels.shape)


def compact(labels: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Local labels 1..n of the ids that occur, and those ids ascending: ``relabel(*compact(ids))`` gives ``ids`` back.

    Args:
        labels: ids, z, y, x, an unsigned dtype; 0 is background.

    Returns:
        uint32 local labels of the same shape, and uint64 ids of length n.
    """
    labels = np.ascontiguousarray(labels)
    starts = run_starts(labels)
    # Hashing the runs' labels takes 0.3 ms a 128^3 block, np.unique with its inverse 8 ms (one core, 70 000 runs).
    found, number_of = fastremap.renumber(labels.reshape(-1)[starts])
    numbers = np.fromiter(number_of.values(), np.intp, len(number_of))
    ids = np.fromiter(number_of.keys(), np.uint64, len(number_of))
    ascending = np.argsort(ids)
    ascending = ascending[ids[ascending] != 0]
    lookup = np.zeros(len(number_of) + 1, np.uint32)
    lookup[numbers[ascending]] = np.arange(1, len(ascending) + 1)
    lengths = np.diff(starts, append=labels.size)
    return np.repeat(lookup[found], lengths).reshape(labels.shape), ids[ascending]


def numbered(ids: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The ids of a block that are not 0, ascending, and for each of its labels the number of its id there, from 1."""
    present = np.unique(ids)
    present = present[present > 0]
    return present, np.where(ids > 0, np.searchsorted(present, ids) + 1, 0)
