"""label, stitch, merge and relabel through the real stages: what is stored equals in-core connected components."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from label_path import (
    CONNECTIVITIES,
    KINDS,
    Dropping,
    Haunted,
    LabelRun,
    Shuffled,
    Twice,
    finish,
    hard_volume,
    in_core,
    label_run,
    require_exact,
    turned,
)

from pipeline.engine.executor import Executor, PicklingExecutor, SerialExecutor, ThreadsExecutor
from pipeline.engine.stage import BlockResult, Stage
from pipeline.engine.step import run_step
from pipeline.errors import StageFailed
from pipeline.geometry import Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.instances.labelling import MERGE_AT_ONCE

EXECUTORS = ("serial", "pickling", "threads", "shuffled", "twice", "haunted", "dropping")
MOST_BLOCKS = 48  # a block costs some milliseconds of storage


def executor_of(kind: str, seed: int) -> Executor:
    made: dict[str, Executor] = {
        "serial": SerialExecutor(),
        "pickling": PicklingExecutor(),
        "threads": ThreadsExecutor(3),
        "shuffled": Shuffled(seed),
        "twice": Twice(),
        "haunted": Haunted(seed),
        "dropping": Dropping(seed),
    }
    return made[kind]


@dataclass(frozen=True)
class Case:
    """All that must not show in the result."""

    kind: str
    shape: Vec3
    block: Vec3
    connectivity: int
    executor: str
    seed: int
    minimum: int
    at_once: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 10), st.integers(1, 11)))
    block = draw(st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(1, 14)))
    while len(BlockGrid(shape, block)) > MOST_BLOCKS:
        block = vec3(side + 1 for side in block)
    return Case(
        kind=draw(st.sampled_from(KINDS)),
        shape=shape,
        block=block,
        connectivity=draw(st.sampled_from(CONNECTIVITIES)),
        executor=draw(st.sampled_from(EXECUTORS)),
        seed=draw(st.integers(0, 10**6)),
        minimum=draw(st.sampled_from([1, 1, 2, 5])),
        at_once=draw(st.sampled_from([0, 4, 30, MERGE_AT_ONCE])),
    )


@settings(max_examples=22, deadline=None, derandomize=True, phases=[Phase.generate])
@given(cases())
def test_any_volume_in_any_blocks_on_any_executor_is_labelled_as_in_core(case: Case) -> None:
    mask = hard_volume(case.kind, case.shape, case.seed)
    with tempfile.TemporaryDirectory() as folder, closing(executor_of(case.executor, case.seed)) as executor:
        run = label_run(Path(folder), mask, case.block, case.connectivity, case.at_once, minimum_voxels=case.minimum)
        finish(run, executor)
        require_exact(run, in_core(mask, case.connectivity, case.minimum))


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_every_hard_volume_through_ragged_blocks(number: int, tmp_path: Path) -> None:
    mask = hard_volume(KINDS[number], (9, 11, 11), seed=number)
    connectivity = CONNECTIVITIES[number % 3]
    run = label_run(tmp_path, mask, (4, 5, 6), connectivity)
    run.go_on(Shuffled(number))
    require_exact(run, in_core(mask, connectivity))


@pytest.mark.parametrize("at_once", [0, MERGE_AT_ONCE])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_a_path_that_winds_through_every_block_is_one_instance(connectivity: int, at_once: int, tmp_path: Path) -> None:
    mask = turned(hard_volume("coil", (9, 9, 9), 0), 29)
    run = label_run(tmp_path, mask, (3, 3, 3), connectivity, at_once)
    run.go_on(Shuffled(3))
    require_exact(run, in_core(mask, connectivity))
    assert run.table["id"].to_pylist() == [1]


@pytest.mark.parametrize("shape", [(1, 1, 13), (1, 13, 1), (13, 1, 1), (1, 4, 5), (5, 1, 4), (4, 5, 1), (1, 1, 1)])
def test_volumes_without_thickness_in_blocks_of_one_voxel(shape: Vec3, tmp_path: Path) -> None:
    mask = hard_volume("random 0.5", shape, seed=5)
    for connectivity in CONNECTIVITIES:
        run = label_run(tmp_path / str(connectivity), mask, (1, 1, 1), connectivity)
        run.go_on()
        require_exact(run, in_core(mask, connectivity))


@dataclass(frozen=True)
class Failing:
    """A stage that raises at some blocks, before or after it has done its work."""

    stage: Stage
    blocks: frozenset[int]
    after: bool

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def grid(self) -> BlockGrid:
        return self.stage.grid

    @property
    def fingerprint(self) -> str:
        return self.stage.fingerprint

    def warm_up(self) -> None:
        self.stage.warm_up()

    def __call__(self, block: Block) -> BlockResult:
        if block.number not in self.blocks:
            return self.stage(block)
        if self.after:
            self.stage(block)
        raise OSError(f"no space left for block {block.number}")


def go_on_failing(run: LabelRun, stage: str, blocks: frozenset[int], after: bool) -> None:
    for step in run.steps:
        stages = tuple(Failing(s, blocks, after) if s.name == stage else s for s in step.all_stages())
        run_step(run.directory, replace(step, stages=stages, planned=lambda: ()), SerialExecutor())


@pytest.fixture
def ragged(tmp_path: Path) -> tuple[LabelRun, Any]:
    mask = hard_volume("random 0.31", (7, 9, 10), 11)
    return label_run(tmp_path, mask, (4, 5, 4), 18, at_once=0), in_core(mask, 18)


def test_a_stage_that_fails_at_some_blocks_is_never_passed_over_and_repeats_only_those(
    ragged: tuple[LabelRun, Any],
) -> None:
    run, expected = ragged
    stages = {"label": 12, "stitch": 12, "merge-0": 12, "merge-1": 2, "merge-2": 1, "relabel": 12, "measure": 12}
    for number, (stage, blocks) in enumerate(stages.items()):
        failing = frozenset({number % blocks, blocks - 1})
        with pytest.raises(StageFailed, match=rf"stage {stage}: {len(failing)} of {blocks} blocks failed"):
            go_on_failing(run, stage, failing, after=bool(number % 2))
        done = run.finished()
        assert list(done) == sorted(list(stages)[: number + 1])
        assert set(done[stage]) == set(range(blocks)) - failing
        assert not run.directory.instances.exists()
    run.go_on()
    require_exact(run, expected)
