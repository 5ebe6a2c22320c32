"""Export to Neuroglancer Precomputed: which levels to write, how to copy one block of one, and a probe of the result.

Every level has its own grid of whole chunks, independent of the run's blocks. Level k reads level k - 1, so the raw
data are read once. Besides the precomputed module this one names x, y and z in that order, in two places on purpose:
the probe, which must not share the code it checks, and the Neuroglancer state, whose viewer expects x, y, z.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.formats import Array, Kind
from pipeline.formats.address import join
from pipeline.formats.precomputed import DTYPES, cloud_path, create_precomputed, mip_levels, torn_chunk_errors
from pipeline.geometry import Box, FloatVec3, Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.ops.downsample import MOST_MIPS, downsample, mip_factors
from pipeline.volume import UNREADABLE, Volume

CHUNK: Vec3 = (64, 64, 64)
CHUNKS_PER_BLOCK = 2  # per axis: 128^3, at most 256^3 uint64 read for it (134 MB)
PROBE_VOXELS = 24  # longest side of a probe's box
OVERLAY_SHADER = "#uicontrol vec3 color color\nvoid main() { emitRGBA(vec4(color, toNormalized(getDataValue()))); }"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer to export: its name (the folder below the export's URL), kind and source volume."""

    name: str
    kind: Kind
    source: Volume


@dataclass(frozen=True, slots=True)
class ExportLevel:
    """One resolution of one layer: an address pair and a grid, picklable by value, no open handle.

    ``factor`` is the cell of source voxels behind one target voxel, ``lead`` how many of the first cell lie before the
    source's first voxel (see ``mip_levels``); both z, y, x.
    """

    layer: str
    kind: Kind
    mip: int
    source: Volume
    target: Volume
    grid: BlockGrid
    factor: Vec3
    lead: Vec3 = (0, 0, 0)

    def source_box(self, core: Box) -> Box:
        """The source voxels behind a box of target voxels, inside the source."""
        start = vec3(a * f - d for a, f, d in zip(core.start, self.factor, self.lead, strict=True))
        stop = vec3(b * f - d for b, f, d in zip(core.stop, self.factor, self.lead, strict=True))
        return Box(start, stop).clipped(self.source.box)

    def __call__(self, block: Block) -> None:
        """Copy one block."""
        copy_block(self, block)


def copy_block(level: ExportLevel, block: Block) -> None:
    """Read, downsample and write one block: whole chunks, cropped to the true extent; doing it again is harmless."""
    array = level.source.read(level.source_box(block.core))
    level.target.write(block.core, downsampled(level, block, array))


def downsampled(level: ExportLevel, block: Block, array: Array) -> Array:
    """What ``copy_block`` does between reading and writing, for a stage that times its parts."""
    first = vec3(d if a == 0 else 0 for a, d in zip(block.core.start, level.lead, strict=True))
    return downsample(array, level.factor, level.kind, first).astype(level.target.dtype, copy=False)


def export_levels(
    base_url: str, layers: Sequence[Layer], chunk: Vec3 = CHUNK, most_mips: int = MOST_MIPS
) -> list[ExportLevel]:
    """All levels of all layers, each layer's from fine to coarse: the order in which they must be written.

    Reads and writes nothing. Segmentations are stored as uint64, bool as uint8, everything else in its own dtype.

    Args:
        base_url: local path or URL; layer ``raw`` goes to ``base_url/raw``.
        layers: their sources must state a voxel size.
        chunk: z, y, x voxels; a block is two chunks along each axis.
        most_mips: how many coarser levels at most.

    Raises:
        BadInput: a source states no voxel size, or has a dtype that the format does not store.
    """
    return [level for layer in layers for level in _layer_levels(base_url, layer, chunk, most_mips)]


def create_layers(levels: Sequence[ExportLevel]) -> dict[str, FloatVec3]:
    """Write the info of every layer in ``levels``; an existing info is replaced, chunks stay.

    Returns:
        By layer, what its offset lies off whole voxels (nm, z, y, x; see ``create_precomputed``).
    """
    remainders = {}
    for first in (level for level in levels if level.mip == 0):
        target = first.target
        mips = [level.factor for level in levels if level.layer == first.layer and level.mip > 0]
        remainders[first.layer] = create_precomputed(
            target.url, target.shape, target.dtype, _size(target), target.offset_nm, target.chunks, first.kind, mips
        )
    return remainders


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
            problems.append(f"{target} {box}: it or its source cannot be read ({type(error).__name__}: {error})")
            continue
        wrong = int(np.count_nonzero(found != wanted))
        if wrong:
            problems.append(f"{target} {box}: {wrong} of {box.size} voxels differ from {source}")
    return problems


def neuroglancer_state(
    base_url: str, layers: Mapping[str, Kind], voxel_size_nm: FloatVec3, position: FloatVec3
) -> dict[str, Any]:
    """The JSON state that shows an export in Neuroglancer.

    Args:
        base_url: URL of the export as the browser reaches it (``https://``, ``s3://``, ``gs://``).
        layers: kind of each layer by name, bottom first; images after the first are shown as coloured overlays.
        voxel_size_nm: z, y, x.
        position: z, y, x, in voxels of mip 0 counted from the origin (offset included).
    """
    images = [name for name, kind in layers.items() if kind == "image"]
    return {
        "dimensions": {axis: [size / 1e9, "m"] for axis, size in zip("xyz", reversed(voxel_size_nm), strict=True)},
        "position": list(reversed(position)),
        "crossSectionScale": 1,
        "layers": [_layer_state(base_url, name, kind, name in images[1:]) for name, kind in layers.items()],
        "selectedLayer": {"layer": list(layers)[-1], "visible": False},
        "layout": "4panel",
    }


def _layer_state(base_url: str, name: str, kind: Kind, overlay: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"type": kind, "source": f"precomputed://{join(base_url, name)}", "name": name}
    if overlay:
        # Probability maps: on demand, so that the first view is the tissue with its instances.
        state |= {"shader": OVERLAY_SHADER, "opacity": 0.5, "visible": False}
    return state


def _layer_levels(base_url: str, layer: Layer, chunk: Vec3, most_mips: int) -> Iterator[ExportLevel]:
    source, dtype = layer.source, _stored_dtype(layer)
    factors = mip_factors(_size(source), source.shape, chunk, most_mips)
    geometry = mip_levels(source.shape, _size(source), source.offset_nm, factors)
    block = vec3(CHUNKS_PER_BLOCK * c for c in chunk)
    for mip, level in enumerate(geometry):
        factor = factors[mip - 1] if mip else (1, 1, 1)
        fine = geometry[mip - 1].voxel_offset if mip else level.voxel_offset
        lead = vec3(f - c * k for f, c, k in zip(fine, level.voxel_offset, factor, strict=True))
        offset = source.offset_nm if mip == 0 else _corner_nm(level.voxel_offset, level.voxel_size_nm)
        target = Volume(
            join(base_url, layer.name), str(mip), "precomputed", level.extent, dtype, chunk, level.voxel_size_nm, offset
        )
        yield ExportLevel(layer.name, layer.kind, mip, source, target, BlockGrid(level.extent, block), factor, lead)
        source = target


def _stored_dtype(layer: Layer) -> str:
    if layer.kind == "segmentation":
        return "uint64"
    dtype = "uint8" if layer.source.dtype == "bool" else layer.source.dtype
    if dtype in DTYPES:
        return dtype
    raise BadInput(
        f"layer {layer.name} of {dtype}", f"precomputed stores {', '.join(DTYPES)}", nearest="Convert it first."
    )


def _size(volume: Volume) -> FloatVec3:
    if volume.voxel_size_nm is None:
        raise BadInput(str(volume), "an export needs the voxel size", "Neuroglancer places volumes in nanometres")
    return volume.voxel_size_nm


def _corner_nm(voxels: Vec3, size: FloatVec3) -> FloatVec3:
    z, y, x = (v * s for v, s in zip(voxels, size, strict=True))
    return z, y, x


def _probe_boxes(box: Box, count: int, seed: int) -> Iterator[Box]:
    random = np.random.default_rng(seed)
    sides = vec3(min(PROBE_VOXELS - 4 * axis, n) for axis, n in enumerate(box.shape))  # unequal: a swap shows
    room = [n - side for n, side in zip(box.shape, sides, strict=True)]
    inner = (vec3(int(random.integers(0, r + 1)) for r in room) for _ in range(count - 2))
    for start in islice(chain([(0, 0, 0), vec3(room)], inner), max(count, 1)):
        yield Box(start, vec3(s + n for s, n in zip(start, sides, strict=True)))


def _header_mismatches(source: Volume, exported: Any) -> list[str]:
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "voxel size (nm)": (list(_size(source)), [float(value) for value in exported.resolution][::-1]),
        "extent": ([float(n) for n in source.shape], [float(n) for n in exported.volume_size][::-1]),
    }
    return [
        f"{exported.cloudpath}: {name} z, y, x is {found}, the source's is {wanted}"
        for name, (wanted, found) in pairs.items()
        if not np.allclose(wanted, found, rtol=1e-9, atol=0.0)
    ]


def _physical_cutout(exported: Any, source: Volume, box: Box) -> Array:
    """The exported voxels at the position in nm where the source says that ``box`` lies; z, y, x."""
    size_z, size_y, size_x = _size(source)
    off_z, off_y, off_x = source.offset_nm
    corner_nm = np.array([off_x + box.start[2] * size_x, off_y + box.start[1] * size_y, off_z + box.start[0] * size_z])
    x, y, z = np.floor(corner_nm / np.asarray(exported.resolution, float) + 0.5 + 1e-6).astype(int)
    depth, height, width = box.shape
    cutout = np.asarray(exported[x : x + width, y : y + height, z : z + depth])
    return np.asarray(np.moveaxis(cutout[..., 0], (2, 1, 0), (0, 1, 2)))
