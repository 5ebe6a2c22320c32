"""Trainings without pictures: of a tiny training in this process they take more than half of the time."""

from __future__ import annotations

import pytest


@pytest.fixture
def drawn() -> None:
    """Asked for by the tests that look at the pictures of a training."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing where `drawn` is not asked for."""
    if "drawn" in request.fixturenames:
        return
    monkeypatch.setattr("pipeline.training.record.log.TrainingLog.draw", lambda _told: None)
    monkeypatch.setattr("pipeline.training.segmentation.train.write_examples", lambda *_: None)
