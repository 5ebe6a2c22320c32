"""Labels of blocks come back from their runs as they were stored, whole, in parts, and as planes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline.store.tables
from pipeline.errors import BadInput
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import runs
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables

SIDES = st.tuples(*[st.integers(1, 9)] * 3)


@pytest.mark.parametrize("head", [pipeline.store.tables._HEAD, 600], ids=["read at once", "read as needed"])
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SIDES,
    block=SIDES,
    highest=st.sampled_from([1, 3, 300, 70_000]),
    density=st.sampled_from([0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_any_part_of_any_block_reads_as_it_was_stored(
    monkeypatch: pytest.MonkeyPatch, head: int, shape: Vec3, block: Vec3, highest: int, density: float, seed: int
) -> None:
    monkeypatch.setattr(pipeline.store.tables, "_HEAD", head)
    random = np.random.default_rng(seed)
    grid = BlockGrid(shape, block)
    labels = (random.integers(1, highest + 1, shape) * (random.random(shape) < density)).astype(np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        stored = StoredLabels(BlockTables(Path(folder)), grid)
        for each in grid:
            own = np.ascontiguousarray(labels[each.core.slices()])
            if not own.any():
                continue
            stored.write(each.number, own, runs(own), {"ids": np.arange(3)})
            start = vec3(random.integers(0, each.core.shape))
            stop = vec3(random.integers(np.array(start) + 1, np.array(each.core.shape) + 1))
            part = Box(start, stop).shifted(each.core.start)
            for box in (each.core, part):
                found = stored.read(box)
                assert found.dtype == np.uint32 and found.flags.c_contiguous
                np.testing.assert_array_equal(found, labels[box.slices()])
            for found_array, expected in zip(stored.runs(each.number), runs(own), strict=True):
                np.testing.assert_array_equal(found_array, expected)
            np.testing.assert_array_equal(stored.rim(each.number).plane(1, high=True), own[:, -1:, :])
            assert stored.tables.opened(each.number)["ids"].tolist() == [0, 1, 2]


def test_a_block_that_was_never_stored_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    stored = StoredLabels(BlockTables(tmp_path / "tables" / "label"), BlockGrid((4, 4, 4), (4, 4, 2)))
    labels = np.ones((4, 4, 2), np.uint32)
    stored.write(0, labels, runs(labels), {})
    assert stored.read(Box((1, 1, 1), (2, 3, 2))).tolist() == [[[1], [1]]]
    with pytest.raises(BadInput, match=r"label/00000/1\.arrays: .* must be there whole"):
        stored.read(Box((0, 0, 2), (1, 1, 3)))
