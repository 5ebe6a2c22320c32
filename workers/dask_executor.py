"""The executor that runs blocks as plain Dask tasks on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distributed import Client
from distributed.comm.core import CommClosedError

from pipeline.engine.stage import BlockResult, Stage
from workers.task import Shipment, warm_up_here
from workers.window import WINDOW_CANCELLED, Window, scheduler_lost

# Tasks (of one block, or some short ones): enough for hundreds of GPUs, and under 2 MB in the driver.
IN_FLIGHT = 1000
WORKER_WAIT_S = 120.0


class DaskExecutor:
    """Runs the blocks of a stage on the workers of a Dask client, which stays the caller's to close.

    Args:
        client: connected to the scheduler.
        in_flight: most Dask tasks submitted and not yet finished.
        worker_wait_s: seconds without any worker after which a stage gives up.
    """

    def __init__(self, client: Client, in_flight: int = IN_FLIGHT, worker_wait_s: float = WORKER_WAIT_S) -> None:
        self.client, self.in_flight, self.worker_wait_s = client, in_flight, worker_wait_s

    def map(self, stage: Stage, numbers: Iterable[int]) -> Iterator[BlockResult]:
        """Results as they are done. Closing the iterator cancels what has not started.

        A block whose worker dies is run again by Dask. One that kills its workers again and again is tried once more
        alone, after all others, and then reported as failed.

        Raises:
            WorkersLost: no scheduler, or no worker for ``worker_wait_s`` seconds.
            Exception: whatever ``stage.warm_up`` raises on a worker before the first block.
        """
        shipment = Shipment.of(stage)
        self._warm_up_all(shipment)
        window = Window(self.client, shipment, iter(numbers), self.in_flight, self.worker_wait_s)
        try:
            yield from window.results()
        finally:
            window.cancel()

    def close(self) -> None:
        """Nothing: client and cluster belong to who opened them."""

    def _warm_up_all(self, shipment: Shipment) -> None:
        """Load the model on all workers at once, before any block is timed; later workers do it with their first."""
        try:
            answers = self.client.run(warm_up_here, shipment, on_error="return")
        except (*WINDOW_CANCELLED, OSError) as error:
            raise scheduler_lost(self.client) from error
        for answer in answers.values():
            # A worker that died meanwhile is Dask's to replace.
            if isinstance(answer, Exception) and not isinstance(answer, CommClosedError):
                raise answer
