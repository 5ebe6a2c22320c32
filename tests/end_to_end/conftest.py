"""The tiny run and its fixtures, also for the processes that tests start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from command_line import teramito  # noqa: F401
from forked import processes  # noqa: F401
from tiny_run import one_thread, phantom_path, tiny_model  # noqa: F401
