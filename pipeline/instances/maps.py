"""Two stored probability maps, from this network or any other, held against what instances need of them."""

from __future__ import annotations

import numpy as np

from pipeline.engine.finished import require_complete_array
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3
from pipeline.image.grey import sample_boxes
from pipeline.image.maps import Maps
from pipeline.image.quantise import to_uint8
from pipeline.store.identity import digest, source_fingerprint
from pipeline.store.volume import Volume, open_volume


def open_maps(semantic: str, boundary: str, voxel_size_nm: FloatVec3 | None) -> Maps:
    """The maps at two addresses.

    Args:
        semantic, boundary: addresses of uint8 (0..255) or float (0..1) volumes.
        voxel_size_nm: z y x, where the files state none.

    Raises:
        BadInput: the maps differ in shape, are no probability maps, or a run has not finished them.
    """
    addresses = (semantic, boundary)
    first, second = (open_volume(address, voxel_size_nm) for address in addresses)
    if first.shape != second.shape:
        raise BadInput(
            f"{semantic} of {first.shape} and {boundary} of {second.shape}",
            "the two maps must have the same shape",
            "they are compared voxel by voxel",
            "Crop one of them: PATH[z0:z1,y0:y1,x0:x1].",
        )
    for address, volume in zip(addresses, (first, second), strict=True):
        _require_map(address, volume)
    sources = {"semantic": source_fingerprint(first), "boundary": source_fingerprint(second)}
    return Maps(first, second, digest(sources))


def _require_map(address: str, volume: Volume) -> None:
    dtype = np.dtype(volume.dtype)
    if dtype != np.uint8 and dtype.kind != "f":
        raise BadInput(
            f"{address} of dtype {volume.dtype}",
            "a probability map is uint8 (0..255) or float (0..1)",
            "the scale of any other dtype is a guess",
        )
    require_complete_array(volume, address)
    _require_probabilities(address, volume)


def _require_probabilities(address: str, volume: Volume) -> None:
    """Refuse a float map whose samples are no probabilities; what they do not hold, its block finds."""
    for box in sample_boxes(volume) if np.dtype(volume.dtype).kind == "f" else ():
        try:
            values = volume.read(box)
        except BadInput:  # a torn chunk: its block will fail by name, and the others go on
            continue
        to_uint8(values, f"{address} {box}")
