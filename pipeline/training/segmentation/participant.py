"""``python -m pipeline.training.segmentation.participant CONFIG.json``: one of the other processes of a training.

The first process starts them. They take the same steps; it alone validates and writes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from pipeline.errors import RunCancelled
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import processes
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.segmentation.start import checked_network, initial_weights
from pipeline.training.segmentation.volumes import load_volume
from pipeline.training.session import output_of

_WATCH_SECONDS = 1.0


def take_part(config: TrainConfig) -> None:
    """Take the steps of a training that another process leads, and neither validate nor write."""
    output = output_of(config)
    samples = Samples([load_volume(source, config) for source in config.volumes], config, shard_count(config))
    initial = initial_weights(config, checked_network(config))
    with processes(config, output) as group:
        run = TrainingRun(config, samples, output, group, initial)
        try:
            run.finish(threading.Event(), lambda: None, None)
        except RunCancelled:
            pass  # said by the first process
        finally:
            run.close()


def _end_with_parent() -> None:
    """A process whose first process was killed must not keep its GPU."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _participate(path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes; the first one decides
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    take_part(TrainConfig.model_validate_json(path.read_text()))


if __name__ == "__main__":
    _participate(Path(sys.argv[1]))
