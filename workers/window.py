"""The sliding window of one stage: which blocks are with Dask, which wait, and what became of each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, cast

from distributed import Client, Future, KilledWorker

from pipeline.engine.stage import BlockResult, failed, unreadable_in
from pipeline.errors import TeramitoError, kind_of
from workers.task import TASK_SECONDS, Reply, Shipment, Task, run_blocks

LARGEST_TASK = 100  # blocks; a no-op block then costs 0.05 to 0.14 ms all in, and 2 to 4 ms in its own task
POLL_S = 2.0
# Replies are some hundred bytes. One that died with its worker is only noticed by waiting; a slow network doubles it.
_FETCH_S, _LONGEST_FETCH_S = 3.0, 96.0
_SUBMIT_AT_ONCE = 32  # then look at what has finished, so that the size of the next tasks is a measured one
# And wait so long for the first: without it 100 to 200 blocks of 10 ms went out one by one, at 3 ms of CPU each.
_UNMEASURED_S = 0.05
# After so many blocks proven to kill, something general is wrong (memory limit, driver): other suspects are not tried.
_MOST_PROVEN = 10
_KILLED = (
    "the worker process died every time it ran this block. Most often it needs more memory than the worker has: "
    "use smaller blocks, fewer threads a worker or a higher memory limit"
)
# distributed raises asyncio's; the other one is for futures cancelled by its own callbacks.
WINDOW_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)

Key = tuple[str, int]


class WorkersLost(TeramitoError):
    """The scheduler, or every worker, is gone; finished blocks are kept and the same command resumes the run."""


@dataclass(slots=True)
class Window:
    """The blocks of one stage on their way through Dask.

    Args:
        client: connected to the scheduler.
        shipment: the stage.
        todo: numbers of the blocks to run.
        limit: most tasks in flight.
        worker_wait_s: seconds without any worker before giving up.
    """

    client: Client
    shipment: Shipment
    todo: Iterator[int]
    limit: int
    worker_wait_s: float
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)
    _submitted: int = 0
    _block_s: float | None = None
    _returned: deque[int] = field(default_factory=deque)
    _suspects: deque[int] = field(default_factory=deque)
    _proven: int = 0
    _in_flight: dict[Key, tuple[Future[Reply], tuple[int, ...]]] = field(default_factory=dict)
    _finished: SimpleQueue[Future[Reply]] = field(default_factory=SimpleQueue)
    _fetch_s: float = _FETCH_S
    _worker_seen: float = field(default_factory=time.monotonic)

    def results(self) -> Iterator[BlockResult]:
        """All blocks side by side; then, alone, each block that was running when its workers died.

        Dask blames a dead worker on every task that worker held, so the innocent come out with a result here.

        Raises:
            WorkersLost: no scheduler, or no worker for ``worker_wait_s`` seconds.
        """
        while self._fill():
            yield from self._settled(alone=False)
        while self._suspects:
            number = self._suspects.popleft()
            if self._proven >= _MOST_PROVEN:
                yield failed(number, f"{_KILLED} (not tried alone, as {self._proven} other blocks do the same)")
                continue
            self._submit((number,))
            while self._in_flight:
                yield from self._settled(alone=True)

    def cancel(self) -> None:
        """Drop what is in flight: a block that runs goes on to its end unheard, one that waits never starts."""
        futures = [future for future, _ in self._in_flight.values()]
        self._in_flight.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)  # type: ignore[no-untyped-call]

    def _fill(self) -> bool:
        """Submit a few tasks where there is room; False when nothing is left in flight."""
        if self.client.status != "running":
            raise scheduler_lost(self.client)
        for _ in range(min(_SUBMIT_AT_ONCE, self._room)):
            numbers = self._take()
            if not numbers:
                break
            self._submit(numbers)
        return bool(self._in_flight)

    @property
    def _room(self) -> int:
        return self.limit - len(self._in_flight)

    def _take(self) -> tuple[int, ...]:
        """The blocks of the next task: as many as fill ``TASK_SECONDS`` by the latest measurement."""
        size = 1
        if self._block_s is not None:
            size = max(1, min(LARGEST_TASK, int(TASK_SECONDS / max(self._block_s, 1e-6))))
        numbers = [self._returned.popleft() for _ in range(min(size, len(self._returned)))]
        numbers.extend(islice(self.todo, size - len(numbers)))
        return tuple(numbers)

    def _submit(self, numbers: tuple[int, ...]) -> None:
        self._submitted += 1
        # The first word is what Dask's dashboard shows and groups by.
        key = (f"{self.shipment.name}-{self._token}", self._submitted)
        future = self.client.submit(run_blocks, Task(self.shipment, numbers), key=key, pure=False)
        self._in_flight[key] = (future, numbers)
        future.add_done_callback(self._finished.put)  # type: ignore[no-untyped-call]

    def _settled(self, alone: bool) -> Iterator[BlockResult]:
        """Results of the tasks that have finished; waits for one, unless there is something to submit meanwhile."""
        finished = self._next_finished(may_wait=alone or not self._room or not self._has_more())
        if any(future.status == "cancelled" for future in finished):  # nobody but a lost connection does that here
            raise scheduler_lost(self.client)
        erred = {future for future in finished if future.status == "error"}  # asked once: a status can change
        for future in erred:
            numbers = self._in_flight.pop(cast(Key, future.key))[1]
            error = future.exception()  # type: ignore[no-untyped-call]
            yield from self._lost(numbers, error, alone)
        whole = [future for future in finished if future not in erred]
        for future, reply in zip(whole, self._fetched(whole), strict=False):
            numbers = self._in_flight.pop(cast(Key, future.key))[1]
            yield from self._received(numbers, reply)

    def _next_finished(self, may_wait: bool) -> list[Future[Reply]]:
        try:
            first = self._finished.get(timeout=POLL_S if may_wait else _UNMEASURED_S if self._block_s is None else 0.0)
        except Empty:
            if may_wait:
                self._require_workers()
            return []
        return [first, *(self._finished.get() for _ in range(self._finished.qsize()))]

    def _has_more(self) -> bool:
        """True when a block waits; looks one ahead."""
        if not self._returned:
            self._returned.extend(islice(self.todo, 1))
        return bool(self._returned)

    def _fetched(self, futures: list[Future[Reply]]) -> list[Reply]:
        """The replies, all in one request; none where one died with its worker: Dask then computes it again."""
        if not futures:
            return []
        gather = partial(self.client.gather, futures, errors="skip", asynchronous=True)
        try:
            replies: list[Reply] = self.client.sync(gather, callback_timeout=self._fetch_s)  # type: ignore[no-untyped-call]
        except TimeoutError:
            replies = []
            self._fetch_s = min(2 * self._fetch_s, _LONGEST_FETCH_S)
        except (*WINDOW_CANCELLED, OSError) as lost:
            raise scheduler_lost(self.client) from lost
        if len(replies) == len(futures):
            self._fetch_s = _FETCH_S
            return replies
        self._require_workers()
        for future in futures:
            future.add_done_callback(self._finished.put)  # type: ignore[no-untyped-call]
        return []

    def _received(self, numbers: tuple[int, ...], reply: Reply) -> list[BlockResult]:
        self._returned.extend(numbers[len(reply.results) :])
        measured = reply.seconds / len(reply.results)
        self._block_s = measured if self._block_s is None else (self._block_s + measured) / 2
        self._worker_seen = time.monotonic()
        return list(reply.results)

    def _lost(self, numbers: tuple[int, ...], error: BaseException, alone: bool) -> list[BlockResult]:
        if not isinstance(error, KilledWorker):  # the stage could not be unpacked or warmed up on that worker
            return [failed(number, f"{kind_of(error)}: {error}", unreadable_in(error)) for number in numbers]
        if not alone:
            self._suspects.extend(numbers)
            return []
        self._proven += 1
        return [failed(number, _KILLED) for number in numbers]

    def _require_workers(self) -> None:
        """Raise WorkersLost when the scheduler is gone or has had no worker for too long."""
        if self.client.status != "running":
            raise scheduler_lost(self.client)
        try:
            workers = self._worker_threads()
        except (*WINDOW_CANCELLED, OSError) as error:
            raise scheduler_lost(self.client) from error
        if workers:
            self._worker_seen = time.monotonic()
        elif time.monotonic() - self._worker_seen > self.worker_wait_s:
            raise WorkersLost(
                f"stage {self.shipment.name}: no worker for {self.worker_wait_s:g} s, {len(self._in_flight)} tasks "
                "wait. Finished blocks are kept; start workers and run the same command again."
            )

    def _worker_threads(self) -> dict[str, int]:
        """Threads by worker, asked of the scheduler; unlike ``Client.nthreads`` it does not wait for ever."""
        scheduler: Any = self.client.scheduler
        threads: dict[str, int] = self.client.sync(  # type: ignore[no-untyped-call]
            scheduler.ncores, callback_timeout=self.worker_wait_s
        )
        return threads


def scheduler_lost(client: Client) -> WorkersLost:
    """The error for a scheduler that no longer answers."""
    address = client.scheduler.address if client.scheduler is not None else "of this client"
    return WorkersLost(
        f"the connection to the Dask scheduler {address} is lost. Finished blocks are kept; "
        "run the same command again when it is back."
    )
