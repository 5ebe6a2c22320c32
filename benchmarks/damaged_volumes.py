"""The volumes that damage is planted in: their grey levels, their true instances, and what the models saw of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import tissue
from pipeline.geometry import FloatVec3, Triple, vec3
from pipeline.instances.ops.label import label
from pipeline.phantom import Phantom
from pipeline.phantom.damage import KINDS, Damage, plant
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume

UInt8 = NDArray[np.uint8]
SEED = 11
SIDE_OF_QUICK = 320
SPACING_OF_A_KIND = 8
_FLY_MITOCHONDRIA = 191


@dataclass(frozen=True)
class Labelled:
    """One volume; ``part`` says what mito-v1 (first) and interpolation-v1 saw of it.

    Attributes:
        raw, truth: (z, y, x) uint8 grey levels and integer ids.
        spacing: slices from one planted event to the next where all kinds are planted; few slices need a small one.
    """

    name: str
    part: str
    raw: UInt8
    truth: NDArray[Any]
    voxel_size_nm: FloatVec3
    spacing: int = 6

    def planted(self, strength: float, seed: int = SEED) -> tuple[UInt8, UInt8]:
        """Damaged grey levels and what was damaged, by default by the seed of all figures; all kinds in turn."""
        return plant(self.raw, self.voxel_size_nm, KINDS, strength, seed, self.spacing)

    def nearest_kinds(self, strength: float, seed: int) -> list[str]:
        """For each slice of what ``planted`` gives, the kind of the damage that is nearest to it."""
        z, y, x = self.raw.shape
        damage = Damage(vec3((z, y, x)), self.voxel_size_nm, seed, strength, KINDS, self.spacing)
        events = {at: event.kind for at in range(z) if (event := damage.event(at))}
        return [events[min(events, key=lambda at: (abs(at - here), at))] for here in range(z)]

    def planted_kind(self, strength: float, kind: str) -> tuple[UInt8, UInt8]:
        """Likewise of one kind, and less often: detection takes what a sixth of a volume shows for sound."""
        return plant(self.raw, self.voxel_size_nm, (kind,), strength, SEED, max(SPACING_OF_A_KIND, self.spacing))

    def quick(self) -> Labelled:
        """The middle of the plane."""
        crop = tuple(slice(max(0, (n - SIDE_OF_QUICK) // 2), (n + SIDE_OF_QUICK) // 2) for n in self.raw.shape[1:])
        return replace(self, raw=self.raw[:, *crop], truth=self.truth[:, *crop])


def lucchi() -> Labelled:
    """Mouse hippocampus, the slices that no shipped model was trained on."""
    raw, truth = (_read(f"lucchi/train_{kind}.tif", (132, 165)) for kind in ("raw", "instances"))
    return Labelled("lucchi z 132-164", "test, test", raw, truth, (5.0, 5.0, 5.0))


def fly() -> Labelled:
    """Ventral nerve cord; instances are the pieces of the class of mitochondria, see ``tissue.fly``."""
    raw, classes = (_read(f"drosophila_vnc/stack1_{kind}.tif", (0, 20)) for kind in ("raw", "classes"))
    truth = label(classes == _FLY_MITOCHONDRIA, 6)[0]
    return Labelled("fly z 0-19", "trained to 14, to 13", raw, truth, (50.0, 4.6, 4.6), 4)


def mouse() -> Labelled:
    """Mouse tissue by SBEM, the middle of the plane: all of it trained on.

    The slices held out, 20 to 29, have some 60 grey levels: damage there changes nothing that the model sees for good
    (IoU 0.50 clean, 0.52 damaged).
    """
    raw, truth = (_read(f"sbem_mouse/train_{kind}.tif", (0, 20)) for kind in ("raw", "instances"))
    middle = np.s_[:, 256:768, 256:768]
    return Labelled("mouse z 0-19", "trained on, trained on", raw[middle], truth[middle], (40.0, 10.0, 10.0), 4)


def phantom(shape: Triple = (48, 320, 320)) -> Labelled:
    """Synthetic tissue of a seed that nothing was trained on."""
    made = Phantom(vec3(shape), 1005)
    raw, truth = made.both(made.box)
    return Labelled("phantom 1005", "test, test", raw, truth, made.voxel_size_nm)


VOLUMES: dict[str, Callable[[], Labelled]] = {"lucchi": lucchi, "fly": fly, "mouse": mouse, "phantom": phantom}


def stored(path: Path, values: NDArray[Any], voxel_size_nm: FloatVec3) -> str:
    """Write an OME-Zarr; its address."""
    ome_zarr.create(str(path), vec3(values.shape), vec3(values.shape), (16, 128, 128), str(values.dtype), voxel_size_nm)
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return str(path)


def _read(name: str, slices: tuple[int, int]) -> NDArray[Any]:
    tissue.require_data()
    volume = open_volume(f"{os.environ['TERAMITO_DATA']}/{name}[{slices[0]}:{slices[1]},:,:]")
    return volume.read(volume.box)
