"""What is compared: two volumes, the blocks they are cut into, and the directory that holds what was compared.

In a directory of its own (``run.json``, ``ledgers/``, ``tables/overlap``, ``scores.json``, ``matches.parquet``,
``sheet.png``) a comparison goes on where it was killed, and other ways to score the same volumes do not compare them
again. ``blockwise`` does the work, ``illustration`` draws what came out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.engine.directory import RunDirectory, local_directory
from pipeline.engine.finished import open_complete
from pipeline.engine.manifest import claim, recognised
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.inputs import block_of, full_address, require_comparable, segmentation_of
from pipeline.evaluation.results import clear, is_comparison, require_unchanged_volumes
from pipeline.evaluation.stage import OverlapStage
from pipeline.geometry import Triple
from pipeline.grid import BlockGrid
from pipeline.store.formats.address import is_remote
from pipeline.store.identity import digest, identity, stored_files
from pipeline.store.volume import Volume

STEP = "evaluate"
"""What a comparison is called where steps are named."""


@dataclass(frozen=True)
class Comparison:
    """Two volumes to compare and the blocks they are cut into; ``output`` None for a temporary directory."""

    prediction: Volume
    truth: Volume
    grid: BlockGrid
    output: RunDirectory | None = None

    @contextmanager
    def opened(self, again: bool = False) -> Iterator[RunDirectory]:
        """Hold the directory the tables go to; ``again`` forgets what was compared there.

        Raises:
            RunConflict: another process works there, it holds anything but this comparison, or a volume was changed.
        """
        if self.output is None:
            with tempfile.TemporaryDirectory(prefix="teramito-evaluate-") as folder:
                yield RunDirectory(Path(folder))
            return
        anew = again and is_comparison(self.output.root)
        if not anew:  # before the lock, which is a file, goes into another's directory
            require_unchanged_volumes(self.output.root, self.settings)
            recognised(self.output, {"settings": self.settings})
        with self.output.locked():
            if anew:
                clear(self.output.root)
            claim(self.output, {"settings": self.settings, "steps": {STEP: [OverlapStage.name]}})
            yield self.output

    def stage(self, directory: RunDirectory) -> OverlapStage:
        """The block-wise part of the work."""
        fingerprint = digest({side: self.settings[side] for side in self._sides()})
        tables = directory.block_tables("overlap")
        return OverlapStage(self.prediction, self.truth, tables, upstream=fingerprint, grid=self.grid)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the blocks depend on. With a directory each file of the volumes is looked at, once and at first use."""
        sides = {side: {"address": str(volume), **self._facts(volume)} for side, volume in self._sides().items()}
        return {**sides, "block": list(self.grid.block)}

    @property
    def remote(self) -> list[str]:
        """The volumes whose files are not seen: whether they changed is not known."""
        return [str(volume) for volume in self._sides().values() if is_remote(volume.url)]

    def _facts(self, volume: Volume) -> dict[str, Any]:
        return identity(volume) | (
            {} if self.output is None else {"file": stored_files(volume, without=self.output.root)}
        )

    def _sides(self) -> dict[str, Volume]:
        return {"prediction": self.prediction, "truth": self.truth}


def comparison(config: EvaluateConfig) -> Comparison:
    """Open the volumes of a configuration.

    Raises:
        BadInput: the volumes differ in shape, hold no labels, or the directory is a URL.
    """
    prediction, truth = (open_complete(segmentation_of(address)) for address in (config.prediction, config.truth))
    directory = None
    if config.output is not None:
        directory = local_directory(config.output, "Compare into a directory and copy it.")
    return compared(prediction, truth, config.block.shape, directory)


def compared(
    prediction: Volume, truth: Volume, block: Triple | None = None, output: RunDirectory | None = None
) -> Comparison:
    """Two volumes of labels as a comparison, by default in blocks that follow their chunks.

    Raises:
        BadInput: the shapes differ, or a volume holds floating-point numbers.
    """
    require_comparable(prediction, truth)
    return Comparison(prediction, truth, BlockGrid(prediction.shape, block or block_of(prediction, truth)), output)


def addresses_of(made: Comparison, config: EvaluateConfig) -> dict[str, str]:
    """Where prediction and truth lie, whichever the folder one stands in."""
    return {
        "prediction": full_address(made.prediction, config.prediction),
        "truth": full_address(made.truth, config.truth),
    }
