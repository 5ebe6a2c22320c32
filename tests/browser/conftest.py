"""One Prefect server for all tests of flows and pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "flows"))


@pytest.fixture(scope="session")
def api() -> str:
    """URL of its API."""
    from running import shared_server

    return shared_server()
