"""What the steps from maps to instances share, and the record that each of them maps to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.stage import Stage
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import CoarseMask
from pipeline.instances.plan import InstancePlan
from pipeline.instances.stored.labels import StoredLabels
from pipeline.instances.stored.provisional import Provisional
from pipeline.store.tables import BlockTables

# Fragments joined in one process, about 300 bytes each with their pairs; above, super-blocks of about as many.
MERGE_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class Labelling:
    """Where and how instances are made: the part of a plan that needs no network.

    Attributes:
        directory: of the run.
        grid: the blocks.
        chunks: of the segmentation, voxels z y x.
        settings: thresholds, growth, sizes.
        tissue: a mask outside of which there are no instances, if any.
        merge_at_once: fragments that one process joins; more are joined over super-blocks.
    """

    directory: RunDirectory
    grid: BlockGrid
    chunks: Vec3
    settings: InstancePlan
    tissue: CoarseMask | None = None
    merge_at_once: int = MERGE_AT_ONCE

    @property
    def grows(self) -> bool:
        """Whether labels or their rows are made again after the merge: by growth, hole filling or a tissue mask."""
        return self.settings.grow != "none" or all(self.settings.fill_holes) or self.tissue is not None

    @property
    def selects(self) -> bool:
        """Whether more than a size decides which instances there are."""
        return self.grows or self.settings.drop_border or self.settings.join_gap > 0


@dataclass(frozen=True, slots=True)
class Labelled:
    """Instances on their way through the steps: the labels of every block, and the instance of each label.

    Attributes:
        labels: block-local labels 1..n.
        stage: the stage that stored them, and counts them.
        offsets: table of how many labels the blocks before each one hold.
        ids: the instance of every label: a table over all labels, or the blocks' own tables (``ids``).
        highest: the table whose largest value bounds the ids.
        fingerprint: of all that decides labels and ids.
    """

    labels: StoredLabels
    stage: Stage
    offsets: Path
    ids: Path | BlockTables
    highest: Path
    fingerprint: str

    @property
    def provisional(self) -> Provisional:
        """The ids of any box, while they are not final."""
        return Provisional(self.labels, self.stage.grid, self.offsets, self.ids)

    def counts(self, directory: RunDirectory) -> Any:
        """Labels of each block, int64, once the stage that stores them is finished."""
        return counts_of(directory, self.stage)
