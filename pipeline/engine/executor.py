"""The seam between a stage and where its blocks run, and the executors that need no cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pipeline.engine.finished import remedy_of
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import BlockResult, Stage, run_block
from pipeline.errors import BlockFailed, StageFailed

# Called after every block with the ledger; may raise RunCancelled to stop the stage between blocks.
Progress = Callable[[Ledger], None]
SHOWN_FAILURES = 5


class Executor(Protocol):
    """Runs blocks somewhere. Closing the returned iterator early drops the blocks in flight."""

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        """Results of ``run_block(stage, number)`` in any order; never raises for a failed block."""
        ...

    def close(self) -> None:
        """Give back workers and threads."""
        ...


class SerialExecutor:
    """One block after another in this process."""

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        """Results in the order of ``numbers``."""
        stage.warm_up()
        return (run_block(stage, number) for number in numbers)

    def close(self) -> None:
        """Nothing to give back."""


class PicklingExecutor:
    """Serial, but every stage and result makes the round trip through pickle: finds cluster bugs without a cluster."""

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        """Results in the order of ``numbers``; the stage is unpickled anew for every block."""
        shipped = pickle.dumps(stage)
        pickle.loads(shipped).warm_up()
        for number in numbers:
            yield pickle.loads(pickle.dumps(run_block(pickle.loads(shipped), number)))

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(slots=True)
class ThreadsExecutor:
    """A few threads of this process with a sliding window of blocks."""

    threads: int = 2

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        """Results as they are done."""
        stage.warm_up()
        waiting = iter(numbers)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix=stage.name)
        in_flight: set[Future[BlockResult]] = set()
        try:
            while True:
                for number in islice(waiting, 2 * self.threads - len(in_flight)):
                    in_flight.add(pool.submit(run_block, stage, number))
                if not in_flight:
                    return
                finished, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Threads live only as long as a stage."""


def run_stage(stage: Stage, ledger: Ledger, executor: Executor, progress: Progress | None = None) -> None:
    """Run the blocks of ``stage`` that the ledger does not hold; calling it again resumes.

    A failed block is recorded and the stage goes on with the others.

    Raises:
        StageFailed: some blocks failed; names how many and the first boxes.
        RunCancelled: raised by ``progress``; finished blocks are kept, those in flight are dropped.
    """
    if ledger.is_complete:
        return
    with closing(_generator(executor.map(stage, ledger.pending()))) as results:
        for result in results:
            ledger.append(result)
            if progress is not None:
                progress(ledger)
    require_complete(stage, ledger)


def require_complete(stage: Stage, ledger: Ledger) -> None:
    """Raise StageFailed unless every block of the stage is in the ledger."""
    missing = ledger.size - ledger.done_count
    if not missing:
        return
    shown = [_failure(stage, ledger, number) for number in islice(ledger.pending(), SHOWN_FAILURES)]
    more = f"\n  and {missing - len(shown)} more" if missing > len(shown) else ""
    message = (
        f"stage {stage.name}: {missing} of {ledger.size} blocks failed; the others are kept. Run the same command "
        "again to compute only these:\n  "
    )
    lines = "\n  ".join(map(str, shown))
    raise StageFailed(message + lines + more + remedy_of(ledger.unreadable.values()), stage.name, shown)


def _failure(stage: Stage, ledger: Ledger, number: int) -> BlockFailed:
    cause, unreadable = ledger.failures.get(number, "not computed"), ledger.unreadable.get(number)
    return BlockFailed(stage.name, number, stage.grid[number].core, cause, unreadable)


def _generator(results: Iterator[BlockResult]) -> Generator[BlockResult, None, None]:
    try:
        yield from results
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
