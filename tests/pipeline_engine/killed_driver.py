"""A driver for the tests: runs a slow stage in two threads until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

from engine_stages import Tally

from pipeline.engine.executor import ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger

if __name__ == "__main__":
    stage = Tally(Path(sys.argv[1]), blocks=60, seconds=0.1)
    with Ledger(stage.folder / "ledger", stage.name, stage.fingerprint, 60) as ledger:
        run_stage(stage, ledger, ThreadsExecutor(2))
