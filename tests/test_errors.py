"""Errors carry what they say as fields, and keep them through a pickle: they come back from workers."""

from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.engine.directory import RunDirectory
from pipeline.errors import (
    BadInput,
    BadInputs,
    BlockFailed,
    RunCancelled,
    RunConflict,
    StageFailed,
    TeramitoError,
    Unreadable,
    kind_of,
)
from pipeline.geometry import Box
from pipeline.run.verify import Incomplete
from pipeline.training.state import TrainingDiverged
from workers.handshake import VersionMismatch
from workers.window import WorkersLost

ROOT = Path(__file__).parents[1]
BOX = Box((0, 1, 2), (3, 4, 5))
BAD = BadInput("block.shape=[0]", "it must be above 0", "a block holds voxels", "Try 64.")
TORN = Unreadable("/a/v [0:3]", "it must be readable", "it is torn", "Mend it.", path="/a/v", box=BOX)
BLOCK = BlockFailed("label", 7, BOX, "BadInput: it is torn.", "/a/v")
ERRORS: list[TeramitoError] = [
    BAD,
    TORN,
    Unreadable("/a/t.npy", "it must be there", path="/a/t.npy"),
    BadInputs([BAD, TORN]),
    BLOCK,
    StageFailed("stage label: 1 of 8 blocks failed", "label", [BLOCK]),
    Incomplete(RunDirectory(Path("/run")), ["label: 1 of 8 blocks missing"]),
    *(kind("it is so") for kind in (RunConflict, RunCancelled, TrainingDiverged, VersionMismatch, WorkersLost)),
]


def _fields(value: object) -> object:
    """Errors are equal where kind, text and fields are."""
    if isinstance(value, list | tuple):
        return [_fields(each) for each in value]
    return (type(value), str(value), _fields(list(vars(value).items()))) if isinstance(value, TeramitoError) else value


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_keeps_kind_text_and_fields_through_a_pickle(error: TeramitoError) -> None:
    travelled = pickle.loads(pickle.dumps(error))
    assert _fields(travelled) == _fields(error)
    assert travelled.args == error.args


def test_every_kind_of_error_is_tried_here() -> None:
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        if "TeramitoError)" in path.read_text() or "StageFailed)" in path.read_text():
            import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    kinds, seen = [TeramitoError], set[type[TeramitoError]]()
    while kinds:
        kinds += (found := kinds.pop().__subclasses__())
        seen |= set(found)
    assert {kind for kind in seen if not kind.__module__.startswith("test")} == {type(error) for error in ERRORS}


def test_what_cannot_be_read_is_a_bad_input_and_is_called_one() -> None:
    assert isinstance(TORN, BadInput)
    assert (kind_of(TORN), kind_of(BAD), kind_of(ValueError())) == ("BadInput", "BadInput", "ValueError")
    assert (TORN.path, TORN.box) == ("/a/v", BOX)
    assert str(TORN) == "/a/v [0:3]: it must be readable, because it is torn. Mend it."


def test_a_failed_block_says_where_and_why() -> None:
    assert str(BLOCK) == "block 7 [0:3,1:4,2:5]: BadInput: it is torn."
    assert (BLOCK.stage, BLOCK.block, BLOCK.box, BLOCK.unreadable) == ("label", 7, BOX, "/a/v")
