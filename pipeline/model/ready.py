"""The networks of a run, ready on a device: those that it was planned with, one computation at a time in a process.

Importing this module does not load torch; asking for a network does. A driver that only plans needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.arrays import Float32
from pipeline.errors import BadInput
from pipeline.model.pinned import PinnedSpec
from pipeline.model.slot import compute_slot

if TYPE_CHECKING:
    from pipeline.model.load import LoadedModel
    from pipeline.model.restorer import LoadedRestorer


@dataclass(frozen=True, slots=True)
class SlottedModel:
    """A loaded model that computes for one thread of the process at a time, while others read and write."""

    model: LoadedModel

    def predict(self, patches: Float32) -> Float32:
        """(N, 1, D, H, W) -> (N, 2, D, H, W) probabilities: semantic, boundary."""
        with compute_slot():
            return self.model.predict(patches)


@dataclass(frozen=True, slots=True)
class SlottedRestorer:
    """A loaded restorer that computes for one thread of the process at a time, while others read and write."""

    restorer: LoadedRestorer

    def restore(self, inputs: Float32, fraction: Float32 | None) -> Float32:
        """(N, C, H, W) grey levels 0..1 and (N, H, W) places in the gap -> (N, H, W) grey levels 0..1."""
        with compute_slot():
            return self.restorer.restore(inputs, fraction)


def ready_model(name: str, planned: PinnedSpec, device: str) -> SlottedModel:
    """The model of a run; loaded once a process.

    Args:
        name: a shipped name or the path of a specification.
        planned: what it said when the run was planned.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        BadInput: its weights are no longer those, or cannot be read.
    """
    from pipeline.model.load import load_model

    model = load_model(name, device)
    _require_planned("model", name, model.spec, planned)
    return SlottedModel(model)


def ready_restorer(name: str, planned: PinnedSpec, device: str) -> SlottedRestorer:
    """The restorer of a run; arguments and errors as those of ``ready_model``."""
    from pipeline.model.restorer import load_restorer

    restorer = load_restorer(name, device)
    _require_planned("restorer", name, restorer.spec, planned)
    return SlottedRestorer(restorer)


def _require_planned(kind: str, name: str, found: PinnedSpec, planned: PinnedSpec) -> None:
    """Refuse other weights: a worker outlives a run, and keeps the network it has read first."""
    if found.sha256 != planned.sha256:
        raise BadInput(
            f"{kind} {name} with the weights {found.sha256[:12]}",
            f"every worker computes with the weights the run was planned with, {planned.sha256[:12]}",
            "the file was replaced after this worker had loaded it, or lies elsewhere on its machine",
            "Restart the workers.",
        )
