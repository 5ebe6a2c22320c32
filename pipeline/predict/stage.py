"""raw -> semantic and boundary probabilities, uint8."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.grid import Block
from pipeline.image.grey import GreyScale, require_finite
from pipeline.model.ensemble import Member
from pipeline.model.normalisation import Statistics
from pipeline.model.ready import SlottedModel, ready_model
from pipeline.model.spec import ModelSpec
from pipeline.predict.op import Input, PredictOp
from pipeline.predict.tta import variants
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class PredictStage(BlockStage):
    """The network over the blocks of ``grid``; ``count`` of a result is the patches computed.

    ``model``, ``spec`` and ``statistics`` are the first member's; ``others`` are averaged with it, in this order.
    ``levels`` is the table of a restored volume's histogram, which then decides the statistics: those of the raw volume
    count its damage in.
    """

    source: Volume
    semantic: Volume
    boundary: Volume
    op: PredictOp
    model: str
    spec: ModelSpec
    grey: GreyScale
    statistics: Statistics
    device: str = "auto"
    others: tuple[Member, ...] = ()
    levels: Path | None = None

    name = "predict"
    version = 1

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks, in the order in which they are averaged."""
        return Member(self.model, self.spec, self.statistics), *self.others

    @property
    def passes(self) -> int:
        """How often each patch goes through a network: variants times members."""
        return len(variants(self.op.tta)) * len(self.members)

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the stored maps; not the device, not the batch."""
        op = {key: value for key, value in asdict(self.op).items() if key != "batch"}
        return {
            "version": (self.version, self.op.version),
            "op": op,
            "members": [member.function for member in self.members],
            "grey": self.grey.model_dump(),
            **({} if self.levels is None else {"levels": self.levels.name}),
        }

    def warm_up(self) -> None:
        """Load every model; once a process."""
        for member in self.members:
            self._network(member)

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Predict one block."""
        box = self.op.read_box(block.core)
        with watch("read"):
            raw = self.source.read(box)
        require_finite(self.source, box, raw)
        with watch("op"):
            grey = self.grey.to_grey(raw)
            inputs = [self._input(member) for member in self.members]
            semantic, boundary, patches = self.op.averaged(grey, box, block.core, inputs)
        with watch("write"):
            self.semantic.write(block.core, semantic)
            self.boundary.write(block.core, boundary)
        return patches

    def _input(self, member: Member) -> Input:
        statistics = member.statistics
        if self.levels is not None:
            statistics = member.spec.normalisation.statistics(np.asarray(open_table(self.levels)))
        normalise = partial(member.spec.normalisation.apply, statistics=statistics)
        return Input(normalise, self._network(member))

    def _network(self, member: Member) -> SlottedModel:
        return ready_model(member.model, member.spec, self.device)
