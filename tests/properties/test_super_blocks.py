"""Super-blocks of any size give the table of one merge of everything, and each reads no more than it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.instances.ids import write_merge, write_offsets, write_supermerge
from pipeline.instances.ops.fragments import fragment_table, runs
from pipeline.instances.ops.label import Connectivity, label
from pipeline.instances.ops.supermerge import super_grids
from pipeline.instances.stages.stitch import StitchStage
from pipeline.instances.stages.supermerge import SuperMergeStage, UnionTables, fitting_side, super_side
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables, StoredArrays

Mask = NDArray[np.bool_]
Ids = NDArray[np.uint64]
EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)


@dataclass(frozen=True)
class Stored:
    """A labelled and stitched volume as the stages leave it."""

    folder: Path
    stitch: StitchStage
    rows: BlockTables
    counts: NDArray[np.int64]
    pair_counts: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, volume: Mask, block: Vec3, connectivity: Connectivity) -> Stored:
        grid = BlockGrid(vec3(volume.shape), block)
        labels, pairs = StoredLabels(BlockTables(folder / "label"), grid), BlockTables(folder / "pairs")
        counts = np.zeros(len(grid), np.int64)
        for each in grid:
            local, n = label(volume[each.core.slices()], connectivity)
            if n:
                rows = fragment_table(local, n, each.core, grid.extent)
                labels.write(each.number, local, runs(local), {"rows": rows})
            counts[each.number] = n
        write_offsets(folder / "offsets.npy", counts)
        stitch = StitchStage(labels, folder / "offsets.npy", pairs, connectivity, upstream="labels", grid=grid)
        pair_counts = np.array([stitch(each).count for each in grid])
        write_offsets(folder / "pair-offsets.npy", pair_counts)
        return cls(folder, stitch, labels.tables, counts, pair_counts)

    def plain(self, minimum: int) -> Ids:
        table = self.folder / f"plain-{minimum}.npy"
        write_merge(table, self.rows, self.stitch.pairs, self.counts, self.pair_counts, minimum)
        return np.load(table)

    def levels(self, side: int, minimum: int) -> list[SuperMergeStage]:
        stages: list[SuperMergeStage] = []
        for level, supers in enumerate(super_grids(self.stitch.grid.shape, side)):
            stages.append(
                SuperMergeStage(
                    level=level,
                    grid=supers,
                    below=stages[-1] if stages else None,
                    blocks=self.stitch.grid,
                    rows=self.rows,
                    pairs=self.stitch.pairs,
                    offsets=self.stitch.offsets,
                    pair_offsets=self.folder / "pair-offsets.npy",
                    unions=UnionTables(BlockTables(self.folder / f"unions-{side}-{minimum}-{level}")),
                    upstream="pairs",
                    connectivity=self.stitch.connectivity,
                    minimum_voxels=minimum,
                )
            )
        return stages

    def hierarchical(self, side: int, minimum: int, seed: int = 0) -> Ids:
        """Each level's super-blocks in any order, some of them twice."""
        levels, random = self.levels(side, minimum), np.random.default_rng(seed)
        for stage in levels:
            order = random.permutation(len(stage.grid))
            for number in [*order, *order[: len(order) // 3]]:
                stage(stage.grid[int(number)])
        table = self.folder / f"levels-{side}-{minimum}.npy"
        write_supermerge(table, levels, int(self.counts.sum()), prod(self.stitch.grid.extent))
        return np.load(table)


@contextmanager
def watched_reads() -> Iterator[set[tuple[str, int]]]:
    """The tables of blocks that are read meanwhile: folder and number."""
    found: set[tuple[str, int]] = set()
    opened = BlockTables.opened

    def watched(self: BlockTables, number: int) -> StoredArrays:
        found.add((self.folder.name, number))
        return opened(self, number)

    with patch.object(BlockTables, "opened", watched):
        yield found


def some_volume(random: np.random.Generator) -> Mask:
    """Mostly of a density at which large and small groups wind through many blocks; one axis in three is short."""
    shape = random.integers(7, 13, 3)
    if random.random() < 0.4:
        shape[random.integers(3)] = random.integers(1, 4)
    kind = random.choice(["random"] * 5 + ["frame", "checkerboard", "empty"])
    if kind == "random":
        return random.random(shape) < random.choice([0.08, 0.15, 0.25, 0.3, 0.5])
    if kind == "checkerboard":
        return np.indices(shape).sum(axis=0) % 2 == 0
    frame = np.full(shape, kind == "frame")
    frame[1:-1, 1:-1, 1:-1] = False
    return frame


@pytest.mark.parametrize("number", range(9))
def test_super_blocks_of_any_side_give_the_table_of_one_merge(number: int, tmp_path: Path) -> None:
    random = np.random.default_rng(number)
    volume, block, connectivity = some_volume(random), vec3(random.integers(3, 6, 3)), CONNECTIVITIES[number % 3]
    stored = Stored.of(tmp_path, volume, block, connectivity)
    for side, minimum in ((1, 2), (2, 0), (3, 6), (99, 3), (1, 5)):
        assert np.array_equal(stored.hierarchical(side, minimum, number), stored.plain(minimum)), f"side {side}"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".levels"] == []


def may_read(stage: SuperMergeStage, block: Block) -> set[tuple[str, int]]:
    """Its own blocks' rows and pairs and its neighbours' pairs; above, the super-blocks inside it."""
    members = {member.number for member in stage.members(block.core)}
    if stage.below is not None:
        return {(stage.below.unions.tables.folder.name, number) for number in members}
    around = {near.number for near in stage.blocks_of_level().covering(block.core.grown((1, 1, 1)))}
    return {("label", number) for number in members} | {("pairs", number) for number in around}


@pytest.mark.parametrize("number", range(6))
def test_a_super_block_reads_only_itself_and_its_neighbours_and_hands_up_only_what_leaves_it(
    number: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(100 + number)
    volume = some_volume(random)
    stored = Stored.of(tmp_path, volume, (3, 3, 4), CONNECTIVITIES[number % 3])
    for stage in stored.levels(1 + number % 3, 0):
        for block in stage.grid:
            with watched_reads() as read:
                stage(block)
            own = {("label", each.number) for each in stage.members(block.core) if stored.counts[each.number]}
            assert own <= read or stage.below is not None
            assert read <= may_read(stage, block)
            found = stage.unions.read(block.number)
            assert found.open_count <= on_the_surface(volume, stored.stitch.grid, block.core)
    assert found.open_count == 0


@EXAMPLES
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([0.02, 0.2, 1.0]),
    st.integers(1, 200),
    st.integers(0, 2**31),
)
def test_no_super_block_holds_more_fragments_than_fit_at_once_however_they_are_spread(
    blocks: Vec3, filled: float, at_once: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 30, blocks) * (random.random(blocks) < filled)
    side = fitting_side(counts, at_once)
    held = [int(counts[each.core.slices()].sum()) for each in super_grids(blocks, side)[0]]
    assert max(held) <= at_once or side == 1


def test_super_blocks_are_smaller_where_all_fragments_lie_in_one_corner() -> None:
    counts = np.full((20, 20, 20), 8)
    assert fitting_side(counts, 1000) == super_side(8 * 8000, 8000, 1000) == 5
    corner = np.zeros_like(counts)
    corner[:4, :4, :4] = 1000
    assert super_side(64_000, 8000, 1000) == 5
    assert fitting_side(corner, 1000) == 1
    assert fitting_side(corner, 27_000) == 3


def on_the_surface(volume: Mask, grid: BlockGrid, core: Box) -> int:
    """Voxels of a super-block that have a voxel beyond it: as many groups as can leave it."""
    box = Box(
        vec3(a * b for a, b in zip(core.start, grid.block, strict=True)),
        vec3(a * b for a, b in zip(core.stop, grid.block, strict=True)),
    ).clipped(Box.of_shape(grid.extent))
    inner = tuple(slice(a + (a > 0), b - (b < n)) for a, b, n in zip(box.start, box.stop, grid.extent, strict=True))
    return int(volume[box.slices()].sum()) - int(volume[inner].sum())
