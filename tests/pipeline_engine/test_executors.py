"""The executors that need no cluster, on the same stage."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from engine_stages import Meeting, Tally, Torn

from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.model.slot import compute_slot

EXECUTORS = [SerialExecutor(), PicklingExecutor(), ThreadsExecutor(1), ThreadsExecutor(3)]


def describe(executor: Executor) -> str:
    """A name for the test's report."""
    return type(executor).__name__ + str(getattr(executor, "threads", ""))


each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=describe)


@each_executor
def test_every_block_is_run_once_and_comes_back_once(executor: Executor, tmp_path: Path) -> None:
    stage = Tally(tmp_path, blocks=50)
    results = list(executor.map(stage, range(50)))
    assert {result.number: result.count for result in results} == {n: 2 * n for n in range(50)}
    assert len(results) == 50
    assert stage.runs() == list(range(50))


@each_executor
def test_an_exception_in_a_block_is_its_result_in_one_line(executor: Executor, tmp_path: Path) -> None:
    results = list(executor.map(Tally(tmp_path, raises=frozenset({4})), range(12)))
    assert {result.number: result.error for result in results if result.error} == {
        4: "ValueError: two lines of block 4"
    }


@each_executor
def test_a_block_that_cannot_read_something_names_it(executor: Executor, tmp_path: Path) -> None:
    results = list(executor.map(Torn(tmp_path, raises=frozenset({4})), range(12)))
    assert [result.unreadable for result in results if result.unreadable] == [f"{tmp_path}/4"]
    assert [result.error for result in results if result.error] == [
        f"BadInput: {tmp_path}/4 [8:10,0:3,0:3]: it must be readable."
    ]


@each_executor
def test_a_stage_is_warmed_up_once_before_its_blocks(executor: Executor, tmp_path: Path) -> None:
    list(executor.map(Tally(tmp_path), range(12)))
    assert len(list(tmp_path.glob("warm.*"))) == 1


@each_executor
def test_only_the_asked_blocks_are_run(executor: Executor, tmp_path: Path) -> None:
    stage = Tally(tmp_path)
    list(executor.map(stage, iter([3, 1, 8])))
    assert stage.runs() == [1, 3, 8]


@each_executor
def test_an_executor_can_be_closed(executor: Executor) -> None:
    executor.close()


@each_executor
def test_a_stage_that_stops_early_runs_few_blocks_more(executor: Executor, tmp_path: Path) -> None:
    stage = Tally(tmp_path, blocks=1000)

    def stop(ledger: Ledger) -> None:
        if ledger.done_count == 5:
            raise KeyboardInterrupt

    with Ledger(tmp_path / "ledger", stage.name, stage.fingerprint, 1000) as ledger:
        with pytest.raises(KeyboardInterrupt):
            run_stage(stage, ledger, executor, stop)
        assert ledger.done_count == 5
    assert len(stage.runs()) <= 5 + 2 * 3 + 3


def test_threads_run_side_by_side(tmp_path: Path) -> None:
    stage = Meeting(tmp_path, blocks=8)
    assert [result.error for result in ThreadsExecutor(4).map(stage, range(8))] == [None] * 8


def test_one_thread_computes_at_a_time() -> None:
    inside: list[int] = []
    most: list[int] = []

    def compute() -> None:
        with compute_slot():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=compute) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_a_failing_computation_gives_its_slot_back() -> None:
    with pytest.raises(ZeroDivisionError), compute_slot():
        raise ZeroDivisionError
    with compute_slot():
        pass
