"""What all stages have in common: the fingerprint, the timing of a block, and that most have nothing to load."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pipeline.engine.stage import BlockStage, Stopwatch, run_block
from pipeline.grid import Block, BlockGrid
from pipeline.store.identity import digest

GRID = BlockGrid((4, 6, 6), (2, 3, 3))


@dataclass(frozen=True)
class Doubling(BlockStage):
    """Counts twice the number of a block."""

    factor: int = 2

    name = "doubling"
    version = 3

    def work(self, block: Block, watch: Stopwatch) -> int:
        with watch("op"):
            return self.factor * block.number


@dataclass(frozen=True)
class Multiplying(Doubling):
    """The same, with its factor in the fingerprint, and a version of what it computes with."""

    def parameters(self) -> dict[str, Any]:
        return {"factor": self.factor, "version": (self.version, 7)}


def test_a_fingerprint_is_of_name_version_upstream_and_grid() -> None:
    common = {"stage": "doubling", "version": 3, "source": "up", "grid": {"extent": (4, 6, 6), "block": (2, 3, 3)}}
    assert Doubling(upstream="up", grid=GRID).fingerprint == digest(common)
    added = {"factor": 5, "version": (3, 7)}
    assert Multiplying(5, upstream="up", grid=GRID).fingerprint == digest({**common, **added})


def test_whatever_decides_the_result_changes_the_fingerprint() -> None:
    stage = Multiplying(upstream="up", grid=GRID)
    others = [
        replace(stage, factor=3),
        replace(stage, upstream="other"),
        replace(stage, grid=BlockGrid((4, 6, 6), (2, 2, 3))),
    ]
    assert len({each.fingerprint for each in (stage, *others)}) == 4


def test_a_block_gives_what_was_counted_and_the_seconds_of_its_parts() -> None:
    stage: Doubling = pickle.loads(pickle.dumps(Doubling(upstream="up", grid=GRID)))
    stage.warm_up()
    result = run_block(stage, 5)
    assert (result.number, result.count, result.error) == (5, 10, None)
    assert result.op_s > 0 == result.read_s == result.write_s


def test_a_stage_must_say_what_it_does() -> None:
    idle: Any = BlockStage
    with pytest.raises(TypeError, match="abstract"):
        idle(upstream="up", grid=GRID)
