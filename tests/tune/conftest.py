"""The tiny run of the tests of whole runs serves here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

from command_line import teramito  # noqa: F401
from tiny_run import one_thread, phantom_path, tiny_model  # noqa: F401
