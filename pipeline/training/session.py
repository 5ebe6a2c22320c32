"""What stands around the steps of every training: its directory, and how it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipeline.errors import RunCancelled
from pipeline.training.config import TrainingConfig

log = logging.getLogger(__name__)


def output_of(config: TrainingConfig) -> Path:
    """The directory of a training; who trains there holds its ``pipeline.engine.lock.run_lock``."""
    return Path(os.path.expandvars(config.output)).expanduser().absolute()


def made_output(config: TrainingConfig, unvalidated: str) -> Path:
    """The directory of a training, made where it is missing.

    Args:
        config: of the training.
        unvalidated: what the result lacks without a validation volume; a line in the log says so.
    """
    if not config.validation:
        log.warning("no validation volume: the last weights are written, %s", unvalidated)
    output = output_of(config)
    output.mkdir(parents=True, exist_ok=True)
    return output


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, in the main thread; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_stop(number: int, _frame: FrameType | None) -> None:
        stop.set()
        log.info("stopping after this step")
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, set_stop)
    try:
        yield stop
    except KeyboardInterrupt:
        raise RunCancelled("interrupted; the last checkpoint is kept, the same command goes on from it") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
