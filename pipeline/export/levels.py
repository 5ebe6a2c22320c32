"""Export to Neuroglancer Precomputed: which levels to write, how to copy one block of one, and a probe of the result.

Every level has its own grid of whole chunks, independent of the run's blocks. Level k reads level k - 1, so the raw
data are read once. Besides the precomputed module this one names x, y and z in that order, in two places on purpose:
the probe, which must not share the code it checks, and the Neuroglancer state, whose viewer expects x, y, z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.arrays import Array, Kind
from pipeline.errors import BadInput
from pipeline.export.downsample import MOST_MIPS, downsample, mip_factors
from pipeline.geometry import ORIGIN, Box, FloatVec3, Triple, Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.store.formats.address import join
from pipeline.store.formats.precomputed import DTYPES, create_precomputed, mip_levels
from pipeline.store.formats.writer import Writer
from pipeline.store.volume import Volume

_CHUNK = vec3((64, 64, 64))
CHUNKS_PER_BLOCK = 2  # per axis: 128^3, at most 256^3 uint64 read for it (134 MB)


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
    lead: Vec3 = ORIGIN

    def source_box(self, core: Box) -> Box:
        """The source voxels behind a box of target voxels, inside the source."""
        start, stop = (corner * self.factor - self.lead for corner in (core.start, core.stop))
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
    base_url: str, layers: Sequence[Layer], chunk: Triple = _CHUNK, most_mips: int = MOST_MIPS
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
    return [level for layer in layers for level in _layer_levels(base_url, layer, vec3(chunk), most_mips)]


def create_layers(levels: Sequence[ExportLevel], stages: Sequence[str] = ()) -> dict[str, FloatVec3]:
    """Write the info of every layer in ``levels``; an existing info is replaced, chunks stay.

    Args:
        levels: all of each layer, from fine to coarse.
        stages: the names of the stages of a run that write them, one a level; none where no run does.

    Returns:
        By layer, what its offset lies off whole voxels (nm, z, y, x; see ``create_precomputed``).
    """
    remainders = {}
    for first in (level for level in levels if level.mip == 0):
        target = first.target
        numbers = [number for number, level in enumerate(levels) if level.layer == first.layer]
        remainders[first.layer] = create_precomputed(
            target.url,
            target.shape,
            target.dtype,
            size_of(target),
            target.offset_nm,
            target.chunks,
            first.kind,
            mips=[levels[number].factor for number in numbers if levels[number].mip > 0],
            writers=[Writer(stages[number], first.layer, levels[number].grid) for number in numbers if stages],
        )
    return remainders


def _layer_levels(base_url: str, layer: Layer, chunk: Vec3, most_mips: int) -> Iterator[ExportLevel]:
    source, dtype = layer.source, _stored_dtype(layer)
    factors = mip_factors(size_of(source), source.shape, chunk, most_mips)
    geometry = mip_levels(source.shape, size_of(source), source.offset_nm, factors)
    block = chunk * CHUNKS_PER_BLOCK
    for mip, level in enumerate(geometry):
        factor = factors[mip - 1] if mip else vec3((1, 1, 1))
        fine = geometry[mip - 1].voxel_offset if mip else level.voxel_offset
        lead = fine - level.voxel_offset * factor
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


def size_of(volume: Volume) -> FloatVec3:
    """The voxel size of a volume to export, nm, z y x."""
    if volume.voxel_size_nm is None:
        raise BadInput(str(volume), "an export needs the voxel size", "Neuroglancer places volumes in nanometres")
    return volume.voxel_size_nm


def _corner_nm(voxels: Vec3, size: FloatVec3) -> FloatVec3:
    z, y, x = (v * s for v, s in zip(voxels, size, strict=True))
    return z, y, x
