"""``run_stage``: failed blocks are recorded, named and run again; nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_stages import Tally, Torn

from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.executor import SerialExecutor, ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage, run_block
from pipeline.engine.step import Step, run_step
from pipeline.errors import RunCancelled, StageFailed

HERE = Path(__file__).parent


def ledger_of(stage: Tally) -> Ledger:
    """The ledger beside the stage's files."""
    return Ledger(stage.folder / "ledger", stage.name, stage.fingerprint, len(stage.grid))


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    stage = Tally(tmp_path)
    for _ in range(2):
        with ledger_of(stage) as ledger:
            run_stage(stage, ledger, SerialExecutor())
            assert ledger.is_complete
            assert list(ledger.counts) == [2 * n for n in range(12)]
    assert stage.runs() == list(range(12))
    assert len(list(tmp_path.glob("warm.*"))) == 1


def test_failed_blocks_are_counted_and_the_first_are_named_with_their_boxes(tmp_path: Path) -> None:
    stage = Tally(tmp_path, raises=frozenset({0, 2, 4, 6, 8, 10, 11}))
    with ledger_of(stage) as ledger, pytest.raises(StageFailed) as caught:
        run_stage(stage, ledger, SerialExecutor())
    message = str(caught.value)
    assert "stage tally: 7 of 12 blocks failed" in message
    assert "block 2 [4:6,0:3,0:3]: ValueError: two lines of block 2" in message
    assert message.endswith("and 2 more")
    assert stage.runs() == [1, 3, 5, 7, 9]


def test_a_failed_stage_and_its_first_blocks_are_fields_of_the_error(tmp_path: Path) -> None:
    stage = Torn(tmp_path, raises=frozenset(range(6, 12)))
    for _ in range(2):
        with ledger_of(stage) as ledger, pytest.raises(StageFailed) as caught:
            run_stage(stage, ledger, SerialExecutor())
        failures = caught.value.failures
        assert (caught.value.stage, [each.block for each in failures]) == ("tally", [6, 7, 8, 9, 10])
        assert [each.unreadable for each in failures] == [f"{tmp_path}/{number}" for number in range(6, 11)]
        assert [each.box for each in failures] == [stage.grid[number].core for number in range(6, 11)]


def test_a_second_call_runs_exactly_the_failed_blocks(tmp_path: Path) -> None:
    failing = Tally(tmp_path, raises=frozenset({3, 5}))
    with ledger_of(failing) as ledger, pytest.raises(StageFailed):
        run_stage(failing, ledger, SerialExecutor())
    mended = Tally(tmp_path)
    with ledger_of(mended) as ledger:
        run_stage(mended, ledger, ThreadsExecutor(2))
        assert ledger.is_complete
        assert ledger.failures == {}
    assert mended.runs() == list(range(12))


def test_progress_is_told_of_every_block_and_may_cancel(tmp_path: Path) -> None:
    stage, seen = Tally(tmp_path), list[int]()

    def progress(ledger: Ledger) -> None:
        seen.append(ledger.done_count)
        if ledger.done_count == 4:
            raise RunCancelled("stopped by the user")

    with ledger_of(stage) as ledger, pytest.raises(RunCancelled):
        run_stage(stage, ledger, SerialExecutor(), progress)
    assert seen == [1, 2, 3, 4]
    with ledger_of(stage) as ledger:
        run_stage(stage, ledger, SerialExecutor())
    assert stage.runs() == list(range(12))


def test_a_block_outside_the_grid_is_a_failed_block(tmp_path: Path) -> None:
    assert run_block(Tally(tmp_path), 12).error == "IndexError: block 12 of 12"


def test_after_kill_9_of_the_driver_exactly_the_missing_blocks_are_computed(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), *sys.path])
    command = [sys.executable, str(HERE / "killed_driver.py"), str(tmp_path)]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("ran.*"))) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    driver.kill()
    driver.wait()

    stage = Tally(tmp_path, blocks=60)
    before = stage.runs()
    with ledger_of(stage) as ledger:
        missing = list(ledger.pending())
        done = sorted(set(range(60)) - set(missing))
        run_stage(stage, ledger, SerialExecutor())
        assert list(ledger.counts) == [2 * n for n in range(60)]
    assert 4 <= len(done) < 60
    assert set(done) <= set(before)  # array first, ledger line after
    assert stage.runs() == sorted([*before, *missing])


def test_a_complete_step_reads_each_ledger_once_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(directory: RunDirectory, stage: Stage) -> Ledger:
        opened.append(stage.name)
        return open_ledger(directory, stage)

    stages = (Tally(tmp_path, name="one"), Tally(tmp_path, name="two"))
    run_step(RunDirectory(tmp_path), Step("both", stages), SerialExecutor())
    monkeypatch.setattr("pipeline.engine.step.open_ledger", counted)
    run_step(RunDirectory(tmp_path), Step("both", stages), SerialExecutor(), earlier=())
    assert opened == ["one", "two"]
    assert len(stages[0].runs()) == 2 * 12
