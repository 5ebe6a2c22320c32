"""``python -m pipeline.training CONFIG``: train where only torch, numpy and pydantic are installed.

``CONFIG`` is a JSON or YAML file; YAML needs PyYAML. With the whole of teramito installed, ``teramito train`` does the
same and shows it.
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
    """Train what the file named by the first argument says; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
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
