"""raw and the damage map -> grey levels without the damage, and where they were replaced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import Array, Bool, UInt8
from pipeline.denoise.ops.restore import Restored, RestoreOp
from pipeline.denoise.ops.slices import normalised
from pipeline.denoise.relevelling import RELEVEL_VERSION, Relevelling
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box
from pipeline.grid import Block
from pipeline.image.grey import GreyScale, grey_levels, require_finite
from pipeline.image.mask import CoarseMask
from pipeline.model.ready import SlottedRestorer, ready_restorer
from pipeline.model.restorer_spec import RestorerSpec
from pipeline.store.tables import BlockTables, open_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class RestoreStage(BlockStage):
    """The restorer over the blocks of ``grid``; ``count`` of a result is the voxels replaced.

    ``damage`` None is damage everywhere, for restorers that make each slice from itself. ``slices`` is the table of
    gain and offset of each slice (``write_slice_table``), where slices are evened out. With ``kinds``, bits of a damage
    map, only damage of these kinds is replaced, and nothing is restored from any; ``relevelling`` changes the levels of
    others. ``tables`` takes, of each block, the slices ``z`` in which something was ``replaced`` (voxels, with those of
    the blended rim and of other levels) or is ``left`` (damaged voxels that were in gaps too long), int64.
    """

    source: Volume
    grey: GreyScale
    damage: CoarseMask | None
    damage_fingerprint: str
    slices: Path | None
    restored: Volume
    replaced: Volume
    tables: BlockTables
    op: RestoreOp
    model: str
    spec: RestorerSpec
    device: str = "auto"
    kinds: int | None = None
    relevelling: Relevelling | None = None

    name = "restore"
    version = 1

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the stored grey levels; not the device, not the batch."""
        op = {key: value for key, value in asdict(self.op).items() if key != "batch"}
        return {
            "version": (self.version, self.op.version),
            "grey": self.grey.model_dump(),
            "damage": (self.damage_fingerprint, None if self.damage is None else self.damage.factor),
            "slices": None if self.slices is None else self.slices.name,
            "op": op,
            "restorer": self.spec.model_dump(include={"kind", "options", "unsharp", "sha256"}),
            **({} if self.kinds is None else {"kinds": self.kinds}),
            **({} if self.relevelling is None else {"relevelled": (RELEVEL_VERSION, self.relevelling.kinds)}),
        }

    def warm_up(self) -> None:
        """Load the restorer; once a process."""
        self._network()

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Restore one block."""
        core = block.core
        with watch("read"):
            part = self._part(core)
            raw = self._read(core)
        with watch("op"):
            given = self._given(raw, core)
            grey = self._levelled(given, core)
            replaced, left = np.where(grey != given, np.uint8(255), np.uint8(0)), np.zeros(core.shape[0], np.int64)
        if not part.is_empty:
            made = self._restored(part, watch)
            at = part.slices(core.start)
            grey[at], left[at[0]] = made.grey, made.left
            replaced[at] |= made.replaced
        with watch("write"):
            self.restored.write(core, grey)
            counts = np.count_nonzero(replaced, axis=(1, 2))
            if counts.any():  # else the block has no chunks, nor had it any in an attempt before
                self.replaced.write(core, replaced)
            self.tables.write(block.number, _rows(core.start[0], counts, left))
        return int(counts.sum())

    def _part(self, core: Box) -> Box:
        """Where anything may be damaged; only the coarse map is read where nothing is."""
        near = self.op.near(core)
        if self.damage is None:
            return core
        if not self.damage.any(near, self.kinds):
            return Box(core.start, core.start)
        return self.op.part(self.damage.read(near, self.kinds), core)

    def _restored(self, part: Box, watch: Stopwatch) -> Restored:
        read = self.op.read_box(part)
        with watch("read"):
            damaged: Bool = np.ones(read.shape, bool) if self.damage is None else self.damage.read(read)
            wanted = damaged if self.damage is None else self.damage.read(read, self.kinds)
            raw = self._read(read)
        with watch("op"):
            grey = self._levelled(self._given(raw, read), read)
            return self.op(grey, damaged, read, part, self._network(), wanted)

    def _read(self, box: Box) -> Array:
        raw = self.source.read(box)
        require_finite(self.source, box, raw)
        return raw

    def _levelled(self, grey: UInt8, box: Box) -> UInt8:
        return grey if self.relevelling is None else self.relevelling(grey, box)

    def _given(self, raw: Array, box: Box) -> UInt8:
        """Grey levels, evened out where slices are."""
        grey = grey_levels(self.grey, raw)
        if self.slices is None:
            return grey
        return normalised(grey, open_table(self.slices)[box.start[0] : box.stop[0]])

    def _network(self) -> SlottedRestorer:
        return ready_restorer(self.model, self.spec, self.device)


def _rows(first: int, replaced: Array, left: Array) -> dict[str, Array]:
    touched = np.flatnonzero((replaced > 0) | (left > 0))
    return {"z": touched + first, "replaced": replaced[touched], "left": left[touched]}
