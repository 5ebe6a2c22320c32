"""What the network is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.image.grey import GreyScale
from pipeline.store.formats import Kind
from pipeline.store.volume import Volume


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network is shown: the raw volume or a restored one.

    ``layers`` are what of a restored one can be exported, ``levels`` the table of its histogram, 256 counts.
    """

    volume: Volume
    fingerprint: str
    grey: GreyScale
    layers: Mapping[str, tuple[Kind, Volume, str]]
    levels: Path | None = None
