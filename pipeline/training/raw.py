"""Grey levels of a training volume, as the pipeline would show them to the network, and the draw of a volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.training.sources import RawSource

Size = tuple[float, float, float]


class Weighted(Protocol):
    """What is drawn from by its weight."""

    @property
    def weight(self) -> float:
        """Relative share of the draws."""


Drawn = TypeVar("Drawn", bound=Weighted)


def drawn_volume(rng: np.random.Generator, volumes: Sequence[Drawn]) -> Drawn:
    """One of the volumes, by their weights."""
    weights = np.array([volume.weight for volume in volumes])
    return volumes[int(rng.choice(len(volumes), p=weights / weights.sum()))]


def name_of(source: RawSource) -> str:
    """How a volume is called in logs: its folder and file, its crop, its slices."""
    place, _, crop = source.raw.partition("[")
    name = "/".join(Path(place).with_suffix("").parts[-2:]) + (f"[{crop}" if crop else "")
    return name if source.z_range is None else f"{name} z {source.z_range[0]}-{source.z_range[1] - 1}"


def stored_grey(source: RawSource) -> tuple[NDArray[np.uint8], Size | None]:
    """All grey levels (z, y, x) of an image at an address, and its voxel size where that is known.

    Raises:
        BadInput: nothing readable there, or no image.
    """
    from pipeline.image.grey import require_grey, sample_grey
    from pipeline.image.quantise import rounded
    from pipeline.store.volume import open_volume

    image = open_volume(os.path.expandvars(source.raw), source.voxel_size_nm)
    require_grey(image, source.raw)
    grey, _ = sample_grey(image)
    levels = grey.to_grey(image.read(image.box))
    return levels if levels.dtype == np.uint8 else rounded(levels), image.voxel_size_nm


def uint8_grey(source: RawSource, raw: NDArray[Any]) -> NDArray[np.uint8]:
    """The grey levels of an .npz, as they are.

    Raises:
        BadInput: they are not uint8.
    """
    if raw.dtype != np.uint8:
        raise BadInput(
            f"{source.raw} of dtype {raw.dtype}",
            "grey levels in an .npz are uint8",
            "the normalisation counts 256 grey levels",
            "Scale them to 0..255 first, the same way for the whole volume.",
        )
    return raw


def existing(path: str) -> Path:
    """The path of a file, environment variables and ~ replaced.

    Raises:
        BadInput: there is none.
    """
    found = Path(os.path.expandvars(path)).expanduser()
    if not found.is_file():
        raise BadInput(
            path,
            "the file exists",
            f"there is none at {found}",
            "Correct the path, or set TERAMITO_DATA where the path names it.",
        )
    return found


def slices(source: RawSource, depth: int) -> tuple[int, int]:
    """The first slice used and the one after the last, of `depth` stored.

    Raises:
        BadInput: there are no such slices.
    """
    start, stop = source.z_range or (0, depth)
    if 0 <= start < stop <= depth:
        return start, stop
    first = min(max(start, 0), depth - 1)
    raise BadInput(
        f"{source.raw}: z_range [{start}, {stop}]",
        "slices start <= z < stop that the volume has",
        f"it has {depth}",
        f"The nearest legal z_range is [{first}, {min(max(stop, first + 1), depth)}].",
    )
