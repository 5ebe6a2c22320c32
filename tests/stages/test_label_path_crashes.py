"""A crash at any write of the label path, and another one, and another one: the rest is computed, nothing twice."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from crashes import WAYS, Crash, crash_at
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from label_path import CONNECTIVITIES, LabelRun, Shuffled, hard_volume, in_core, label_run, require_exact

from pipeline.engine.executor import Executor, SerialExecutor
from pipeline.instances.labelling import MERGE_AT_ONCE


def crashes(run: LabelRun, at: int, way: str, executor: Executor | None = None) -> bool:
    """Go on until the crash; False when the run came to its end before. What was finished before stays finished."""
    before = run.finished()
    try:
        with crash_at(at, way):
            run.go_on(executor or SerialExecutor())
    except Crash:
        after = run.finished()
        for stage, numbers in before.items():
            assert after[stage][: len(numbers)] == numbers
        return True
    return False


def test_a_crash_in_the_middle_of_any_write_changes_nothing(tmp_path: Path) -> None:
    mask = hard_volume("random 0.31", (3, 4, 6), 2)
    expected = in_core(mask, 26)
    first = label_run(tmp_path, mask, (3, 4, 3), 26, at_once=0)
    at = 0
    while True:
        at += 1
        run = replace(first, root=tmp_path / str(at))
        if not crashes(run, at, "torn"):
            break
        assert not run.directory.instances.exists()
        run.go_on()
        require_exact(run, expected)
    assert {"merge-0", "merge-1"} <= set(run.finished())
    assert at > 30


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(WAYS)), min_size=1, max_size=8),
    st.sampled_from(["random 0.15", "random 0.31", "coil", "comb", "checkerboard", "empty"]),
    st.sampled_from(CONNECTIVITIES),
    st.sampled_from([0, 0, MERGE_AT_ONCE]),
    st.integers(0, 10**6),
)
def test_crash_after_crash_in_blocks_of_any_order_changes_nothing(
    points: list[tuple[int, str]], kind: str, connectivity: int, at_once: int, seed: int
) -> None:
    mask = hard_volume(kind, (7, 7, 9), seed)
    with tempfile.TemporaryDirectory() as folder:
        run = label_run(Path(folder), mask, (4, 3, 5), connectivity, at_once)
        for number, (at, way) in enumerate(points):
            crashes(run, at, way, Shuffled(seed + number))
        run.go_on(Shuffled(seed))
        require_exact(run, in_core(mask, connectivity))


@pytest.mark.parametrize(("left", "options"), [(".levels", {}), (".sums", {"drop_border": True})])
def test_scratch_files_that_a_crash_leaves_beside_a_finished_table_are_removed(
    left: str, options: dict[str, bool], tmp_path: Path
) -> None:
    run = label_run(tmp_path, hard_volume("random 0.31", (6, 8, 8), 2), (3, 4, 4), 6, at_once=0, **options)
    rmtree = shutil.rmtree

    def crashing(path: Path, **how: bool) -> None:
        if path.suffix == left and path.exists():
            raise Crash
        rmtree(path, **how)

    with patch("pipeline.instances.ids.shutil.rmtree", crashing), pytest.raises(Crash):
        run.go_on()
    assert [path.suffix for path in (run.root / "tables").iterdir() if path.suffix == left] == [left]
    run.go_on()
    assert [path.suffix for path in (run.root / "tables").iterdir() if path.suffix == left] == []
