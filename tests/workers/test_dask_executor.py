"""Blocks on a real Dask cluster: every one comes back once, whatever dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster_stages import ColdStage, Recorder, SlowTail, TornStage
from distributed import Client, LocalCluster

from pipeline.engine.executor import run_stage
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import BlockResult
from pipeline.errors import RunCancelled, Unreadable
from workers.dask_executor import DaskExecutor
from workers.task import TASK_SECONDS
from workers.window import WorkersLost


def by_number(results: list[BlockResult]) -> dict[int, BlockResult]:
    """Results by block; fails where a block came twice."""
    found = {result.number: result for result in results}
    assert len(found) == len(results)
    return found


def test_every_block_is_run_once_and_comes_back_once(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = Recorder(tmp_path, blocks=3000)
    found = by_number(list(executor.map(stage, range(3000))))
    assert {number: result.count for number, result in found.items()} == {n: 2 * n for n in range(3000)}
    assert stage.runs() == list(range(3000))


def test_a_second_stage_on_the_same_cluster_is_shipped_by_value_too(executor: DaskExecutor, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        (folder := tmp_path / name).mkdir()
        stage = Recorder(folder, name=name)  # one fingerprint, three places: each must write to its own
        assert len(by_number(list(executor.map(stage, range(20))))) == 20
        assert stage.runs() == list(range(20))


def test_no_blocks_give_no_results(executor: DaskExecutor, tmp_path: Path) -> None:
    assert list(executor.map(Recorder(tmp_path), [])) == []


def test_an_exception_in_a_block_is_its_result_and_the_others_go_on(executor: DaskExecutor, tmp_path: Path) -> None:
    found = by_number(list(executor.map(Recorder(tmp_path, raises=frozenset({3, 7})), range(20))))
    assert {number for number, result in found.items() if result.error} == {3, 7}
    assert found[3].error == "ValueError: block 3 is not to be had"


def test_a_worker_killed_in_the_middle_changes_no_result(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = Recorder(tmp_path, blocks=30, seconds=0.05, kills_once=frozenset({5}))
    found = by_number(list(executor.map(stage, range(30))))
    assert {number: result.count for number, result in found.items()} == {n: 2 * n for n in range(30)}
    assert (tmp_path / "killed.5").exists()
    assert set(stage.runs()) == set(range(30))


def test_a_block_that_always_kills_its_worker_fails_and_its_neighbours_do_not(
    executor: DaskExecutor, tmp_path: Path
) -> None:
    stage = Recorder(tmp_path, blocks=12, seconds=0.3, kills=frozenset({4}))
    found = by_number(list(executor.map(stage, range(12))))
    assert set(found) == set(range(12))
    assert {number for number, result in found.items() if result.error} == {4}
    assert "worker process died every time" in (found[4].error or "")


def test_a_restarted_worker_is_warmed_up_with_its_first_block(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = Recorder(tmp_path, blocks=60, seconds=0.1, kills_once=frozenset({0}), fingerprint="rewarmed")
    list(executor.map(stage, range(60)))
    warmed = stage.warmed()
    assert len(warmed) == len(set(warmed)) == 3  # two eagerly, one after the restart


def test_a_stage_is_warmed_up_once_in_every_process_before_the_first_block(
    executor: DaskExecutor, tmp_path: Path
) -> None:
    stage = Recorder(tmp_path, fingerprint="warmed")
    results = executor.map(stage, range(20))
    next(results)
    assert sorted(executor.client.run(lambda: __import__("os").getpid()).values()) == stage.warmed()
    list(results)
    list(executor.map(stage, range(20)))
    assert len(stage.warmed()) == 2


def test_a_model_that_cannot_be_loaded_stops_the_stage_before_any_block(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = ColdStage(tmp_path, fingerprint="cold")
    with pytest.raises(FileNotFoundError, match=r"weights\.pt is not there"):
        list(executor.map(stage, range(20)))
    assert stage.runs() == []


def test_what_a_worker_cannot_read_comes_back_with_its_fields(executor: DaskExecutor, tmp_path: Path) -> None:
    blocks = TornStage(tmp_path, blocks=3, fingerprint="torn blocks")
    found = by_number(list(executor.map(blocks, range(3))))
    assert {result.unreadable for result in found.values()} == {str(tmp_path)}
    assert {result.error for result in found.values()} == {f"BadInput: {blocks.torn()}"}
    start = TornStage(tmp_path, blocks=3, kills=frozenset({0}), fingerprint="torn start")
    with pytest.raises(Unreadable) as caught:
        list(executor.map(start, range(3)))
    assert (caught.value.path, caught.value.box) == (str(tmp_path), start.grid[0].core)


def test_closing_the_iterator_cancels_the_blocks_that_have_not_started(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = Recorder(tmp_path, blocks=400, seconds=TASK_SECONDS)
    results = executor.map(stage, range(400))
    next(results)
    started = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10.0  # all blocks take 25 s
    assert not executor.client.futures
    ended = -1
    while ended != len(stage.runs()):  # what runs on four threads goes on to its end
        ended = len(stage.runs())
        time.sleep(8 * TASK_SECONDS)
    assert ended < 200


def test_a_cancelled_run_keeps_what_is_done_and_resumes(executor: DaskExecutor, tmp_path: Path) -> None:
    stage = Recorder(tmp_path, blocks=40, seconds=0.05)

    def stop(ledger: Ledger) -> None:
        if ledger.done_count >= 10:
            raise RunCancelled("enough")

    with Ledger(tmp_path / "ledger", stage.name, stage.fingerprint, 40) as ledger:
        with pytest.raises(RunCancelled):
            run_stage(stage, ledger, executor, stop)
        assert ledger.done_count == 10
        run_stage(stage, ledger, executor)
        assert ledger.is_complete


def test_long_blocks_behind_short_ones_do_not_queue_up_in_one_worker(executor: DaskExecutor, tmp_path: Path) -> None:
    # 500 quick blocks make large tasks; the eight long ones behind them must still be spread over the four threads.
    stage = SlowTail(tmp_path, blocks=508, name="tail")
    found = by_number(list(executor.map(stage, range(508))))
    assert len(found) == 508
    assert stage.runs() == list(range(508))
    ended = sorted(stage.ends(number) for number in range(500, 508))
    assert ended[-1] - ended[0] < 7 * stage.tail_seconds - 1.0


def test_without_any_worker_a_stage_gives_up_after_a_bounded_wait(executor: DaskExecutor, tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,  # type: ignore[no-untyped-call]
        Client(empty, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        lonely = DaskExecutor(client, worker_wait_s=0.5)
        with pytest.raises(WorkersLost, match=r"stage record: no worker for 0\.5 s, 20 tasks wait"):
            list(lonely.map(Recorder(tmp_path), range(20)))


def test_a_lost_scheduler_is_one_clear_error_and_no_hang(tmp_path: Path) -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call]
        client = Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]
        results = DaskExecutor(client).map(Recorder(tmp_path, blocks=1000, seconds=0.05), range(1000))
        next(results)
        cluster.close()
        with pytest.raises(WorkersLost, match="connection to the Dask scheduler"):
            list(results)
        client.close()


def test_when_every_block_kills_its_worker_the_stage_ends_with_all_of_them_failed(
    executor: DaskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.window._MOST_PROVEN", 1)
    stage = Recorder(tmp_path, blocks=4, kills=frozenset(range(4)))
    found = by_number(list(executor.map(stage, range(4))))
    assert set(found) == set(range(4))
    assert all(result.error and "worker process died" in result.error for result in found.values())
    assert sum("not tried alone" in (result.error or "") for result in found.values()) == 3
