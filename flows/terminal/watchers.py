"""Several watchers of one run."""

from __future__ import annotations

from flows.terminal.pace import Watcher
from pipeline.engine.executor import Progress
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage


class Both(Watcher):
    """Two watchers of the same run; the second may be missing."""

    def __init__(self, first: Watcher, second: Watcher | None) -> None:
        self._watchers = [watcher for watcher in (first, second) if watcher is not None]

    def __call__(self, step: str, stage: Stage) -> Progress:
        """Watch one stage of a step."""
        each = [watcher(step, stage) for watcher in self._watchers]

        def progress(ledger: Ledger) -> None:
            for one in each:
                one(ledger)

        return progress
