"""An exported layer read back at random boxes through cloud-volume: axes, units, offset and values."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from pipeline.arrays import Array
from pipeline.errors import BadInput, kind_of
from pipeline.export.levels import size_of
from pipeline.geometry import ORIGIN, Box, vec3
from pipeline.store.formats.precomputed import cloud_path, torn_chunk_errors
from pipeline.store.volume import UNREADABLE, Volume

PROBE_VOXELS = 24  # longest side of a probe's box


def probe(source: Volume, target: Volume, count: int = 8, seed: int = 0) -> list[str]:
    """Read random small boxes of the exported mip 0 back and compare them with the source.

    Reads through cloud-volume at *physical* positions with axes named anew, and takes a missing chunk for a mismatch,
    so it catches a wrong axis order, voxel size, offset or value and a hole. Both outer corners are always probed.

    Returns:
        One description per mismatch; empty when everything agrees.
    """
    from cloudvolume import CloudVolume
    from cloudvolume.exceptions import EmptyVolumeException, OutOfBoundsError

    exported = CloudVolume(cloud_path(target.url), mip=0, progress=False, fill_missing=False, provenance={})
    problems = _header_mismatches(source, exported)
    if problems:
        return problems
    unreadable: tuple[type[Exception], ...] = (BadInput, *torn_chunk_errors(), *UNREADABLE)
    for box in _probe_boxes(source.box, count, seed):
        try:
            found, wanted = _physical_cutout(exported, source, box), source.read(box)
        except EmptyVolumeException:
            problems.append(f"{target} {box}: a chunk is missing")
            continue
        except OutOfBoundsError:
            problems.append(f"{target} {box}: the export holds nothing at its position in nm")
            continue
        except unreadable as error:
            problems.append(f"{target} {box}: it or its source cannot be read ({kind_of(error)}: {error})")
            continue
        wrong = int(np.count_nonzero(found != wanted))
        if wrong:
            problems.append(f"{target} {box}: {wrong} of {box.size} voxels differ from {source}")
    return problems


def _probe_boxes(box: Box, count: int, seed: int) -> Iterator[Box]:
    random = np.random.default_rng(seed)
    sides = vec3(min(PROBE_VOXELS - 4 * axis, n) for axis, n in enumerate(box.shape))  # unequal: a swap shows
    room = box.shape - sides
    inner = (vec3(int(random.integers(0, r + 1)) for r in room) for _ in range(count - 2))
    for start in islice(chain([ORIGIN, room], inner), max(count, 1)):
        yield Box(start, start + sides)


def _header_mismatches(source: Volume, exported: Any) -> list[str]:
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "voxel size (nm)": (list(size_of(source)), [float(value) for value in exported.resolution][::-1]),
        "extent": ([float(n) for n in source.shape], [float(n) for n in exported.volume_size][::-1]),
    }
    return [
        f"{exported.cloudpath}: {name} z, y, x is {found}, the source's is {wanted}"
        for name, (wanted, found) in pairs.items()
        if not np.allclose(wanted, found, rtol=1e-9, atol=0.0)
    ]


def _physical_cutout(exported: Any, source: Volume, box: Box) -> Array:
    """The exported voxels at the position in nm where the source says that ``box`` lies; z, y, x."""
    size_z, size_y, size_x = size_of(source)
    off_z, off_y, off_x = source.offset_nm
    corner_nm = np.array([off_x + box.start[2] * size_x, off_y + box.start[1] * size_y, off_z + box.start[0] * size_z])
    x, y, z = np.floor(corner_nm / np.asarray(exported.resolution, float) + 0.5 + 1e-6).astype(int)
    depth, height, width = box.shape
    cutout = np.asarray(exported[x : x + width, y : y + height, z : z + depth])
    return np.asarray(np.moveaxis(cutout[..., 0], (2, 1, 0), (0, 1, 2)))
