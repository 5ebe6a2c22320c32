"""The label path on worker processes, one of which is killed in most stages, equals in-core components."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pipeline.engine.executor import Progress
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage
from pipeline.engine.step import run_step
from workers.dask_executor import DaskExecutor

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

from label_path import hard_volume, in_core, label_run, require_exact


def test_workers_killed_in_most_stages_leave_the_labels_exact(executor: DaskExecutor, tmp_path: Path) -> None:
    mask = hard_volume("random 0.31", (20, 24, 24), 3)
    run = label_run(tmp_path, mask, (5, 6, 6), 6, at_once=0)
    killed: list[str] = []

    def watch(_step: str, stage: Stage) -> Progress:
        def progress(ledger: Ledger) -> None:
            if stage.name in ("label", "merge-0", "relabel") and stage.name not in killed:
                killed.append(stage.name)
                pids = executor.client.run(os.getpid, on_error="ignore")
                os.kill(next(iter(pids.values())), signal.SIGKILL)

        return progress

    for step in run.steps:
        run_step(run.directory, step, executor, watch)
    assert killed == ["label", "merge-0", "relabel"]
    require_exact(run, in_core(mask, 6))
