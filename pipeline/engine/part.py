"""What one method adds to a run: its steps, and all that the run's record, export and warnings need to know of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.arrays import Kind
from pipeline.engine.step import Step
from pipeline.store.volume import Volume


class Exportable(NamedTuple):
    """A volume of a run that may become a Neuroglancer layer; ``fingerprint`` is of the stage that writes it."""

    kind: Kind
    volume: Volume
    fingerprint: str


@dataclass(frozen=True)
class Part:
    """One method's share in a run. A run is the sum of its parts, in order.

    Attributes:
        steps: in order; each brings the check that verification asks of it.
        layers: what can be exported, by the name of the layer.
        facts: what ``run.json`` and ``report.json`` say of the part.
        identities: what tells that the part's inputs (weights, masks) are still the same; compared on resume.
        warnings: for the user; none of them stops the run.
    """

    steps: tuple[Step, ...] = ()
    layers: Mapping[str, Exportable] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    identities: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def together(parts: Iterable[Part]) -> Part:
    """Several parts as one, in their order."""
    each = tuple(parts)
    return Part(
        steps=tuple(step for part in each for step in part.steps),
        layers={name: layer for part in each for name, layer in part.layers.items()},
        facts={name: fact for part in each for name, fact in part.facts.items()},
        identities={name: one for part in each for name, one in part.identities.items()},
        warnings=tuple(warning for part in each for warning in part.warnings),
    )
