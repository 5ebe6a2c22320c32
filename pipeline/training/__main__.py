"""``python -m pipeline.training CONFIG``: train where only torch, numpy, pydantic and safetensors are installed.

``CONFIG`` is a JSON file, or a YAML file where PyYAML is installed. ``teramito train``, with all of teramito installed,
does the same and shows it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pipeline.engine.lock import run_lock
from pipeline.errors import RunCancelled, TeramitoError
from pipeline.training.session import output_of
from pipeline.training.task import read_task, train_task

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Train what the configuration named by the one argument says.

    Returns:
        The exit status: 0, 1 after an error, 2 without an argument, 130 where it was stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if len(arguments) != 1:
        log.error("usage: python -m pipeline.training CONFIG")
        return 2
    try:
        config = read_task(Path(arguments[0]))
        with run_lock(output_of(config)):
            log.info("wrote %s", train_task(config))
    except TeramitoError as error:
        log.error("%s", error)
        return 130 if isinstance(error, RunCancelled) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
