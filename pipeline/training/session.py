"""What every training shares around its steps: its configuration's face, its directory, and how it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pipeline.errors import RunCancelled
from pipeline.training.optimiser import Optimiser

log = logging.getLogger(__name__)


class TrainingConfig(Protocol):
    """What the configuration of any training states; see those of ``segmentation`` and ``restoration``."""

    @property
    def output(self) -> str:
        """The directory of the training."""
        ...

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        ...

    @property
    def optimiser(self) -> Optimiser:
        """How the network learns."""
        ...

    @property
    def ema_decay(self) -> float:
        """Decay of the running average of the weights."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        ...

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        ...

    @property
    def validation(self) -> tuple[Any, ...]:
        """The volumes that select the best weights."""
        ...

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        ...

    def model_dump_json(self) -> str:
        """All of it as JSON."""
        ...


def output_of(config: TrainingConfig) -> Path:
    """The directory of a training; who trains there holds its ``pipeline.engine.lock.run_lock``."""
    return Path(os.path.expandvars(config.output)).expanduser().absolute()


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
