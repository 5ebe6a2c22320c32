"""What the network is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.image.grey import GreyScale
from pipeline.store.volume import Volume


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network is shown: the raw volume or a restored one.

    ``levels`` is the table of a restored one's histogram, 256 counts.
    """

    volume: Volume
    fingerprint: str
    grey: GreyScale
    levels: Path | None = None
