"""The two probability maps between the network and the instances."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.store.volume import Volume


@dataclass(frozen=True, slots=True)
class Maps:
    """The two probability maps that instances are made from, and what they depend on."""

    semantic: Volume
    boundary: Volume
    fingerprint: str
