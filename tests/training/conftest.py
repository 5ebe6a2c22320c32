from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from pictures import drawn, undrawn  # noqa: F401
from tiny_training import write_discs


@pytest.fixture
def volume(tmp_path: Path) -> str:
    return write_discs(tmp_path / "discs.npz")
