"""Cells and the damage map -> grey levels whose badly exposed regions are like the slices around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.arrays import Bool, UInt8
from pipeline.denoise.ops.relevel import relevel_halo, relevelled, relevelling
from pipeline.denoise.ops.slices import normalised
from pipeline.geometry import Box
from pipeline.image.resample import coarse_box
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume

RELEVEL_VERSION = 1  # of what is done to grey levels, for the fingerprint of the stage that does it


@dataclass(frozen=True)
class Relevelling:
    """Damaged cells that get the grey levels of their neighbours: those with a bit of ``kinds``, none of ``not_of``.

    ``mean`` are the grey levels of the cells, ``slices`` the table that evens them out where the image is evened out.
    The same for every block: it reads its own surroundings.
    """

    mean: Volume
    damage: Volume
    slices: Path | None
    side: int
    kinds: int
    not_of: int
    max_gap: int

    def __call__(self, grey: UInt8, box: Box) -> UInt8:
        """The grey levels of a box (inside the volume), in voxels; ``grey`` itself where nothing is to be changed."""
        core = coarse_box(box, (1, self.side, self.side)).grown((0, 1, 1)).clipped(self.damage.box)
        if not self._chosen(self.damage.read(core)).any():
            return grey
        wide = core.grown(relevel_halo(self.max_gap))
        first, last = max(wide.start[0], 0), min(wide.stop[0], self.damage.shape[0])
        around = Box((first, *wide.start[1:]), (last, *wide.stop[1:]))
        mean, found = self.mean.read(around), self.damage.read(around)
        if self.slices is not None:
            mean = normalised(mean, open_table(self.slices)[first:last])
        place, count = core.start[0] - first, core.shape[0]
        table = relevelling(mean, found > 0, self._chosen(found), self.max_gap, place, count)
        return relevelled(grey, table, self.side, box, core.start[1:])

    def _chosen(self, found: UInt8) -> Bool:
        chosen: Bool = ((found & self.kinds) > 0) & ((found & self.not_of) == 0)
        return chosen
