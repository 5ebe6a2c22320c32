"""The networks of a run: their turn to compute, and the weights that the run was planned with."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.model.ready import ready_model, ready_restorer
from pipeline.model.restorer_spec import load_restorer_spec
from pipeline.model.slot import compute_slot
from pipeline.model.spec import load_spec

MODEL, RESTORER = "mito-v1", "interpolation-v1"


def test_a_model_and_a_restorer_wait_for_their_turn_to_compute() -> None:
    planned, made = load_restorer_spec(RESTORER), []
    model, restorer = ready_model(MODEL, load_spec(MODEL), "cpu"), ready_restorer(RESTORER, planned, "cpu")
    slices = np.zeros((1, 2, planned.multiple, planned.multiple), np.float32)
    threads = [
        Thread(target=lambda: made.append(model.predict(np.zeros((1, 1, 1, 16, 16), np.float32)))),
        Thread(target=lambda: made.append(restorer.restore(slices, None))),
    ]
    with compute_slot():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.3)
        assert not made
    for thread in threads:
        thread.join()
    assert len(made) == 2


def test_other_weights_than_those_of_the_plan_are_refused() -> None:
    other = {"sha256": "0" * 64}
    said = r" with the weights [0-9a-f]{12}.*was planned with, 0{12}.*Restart the workers"
    with pytest.raises(BadInput, match=f"model {MODEL}{said}"):
        ready_model(MODEL, load_spec(MODEL).model_copy(update=other), "cpu")
    with pytest.raises(BadInput, match=f"restorer {RESTORER}{said}"):
        ready_restorer(RESTORER, load_restorer_spec(RESTORER).model_copy(update=other), "cpu")
