"""The shape of blocks and of the chunks in them."""

from __future__ import annotations

from math import prod

from pipeline.errors import BadInput
from pipeline.geometry import Triple, Vec3, vec3

# Growth, the hungriest stage, holds about 40 bytes a voxel of a block: 1.3 GB for each thread of a worker.
DEFAULT_BLOCK_VOXELS = 2**25
DEFAULT_PATCH = vec3((32, 128, 128))  # where no network says another
LARGEST_BLOCK_VOXELS = 2**31  # at most half are fragments, a checkerboard: a quarter of what uint32 labels count
CHUNK_LIMIT = 128


def chunk_shape(block: Triple) -> Vec3:
    """Chunks that divide the blocks: per axis the largest divisor of at most 128, or the whole block."""
    return vec3(_chunk_length(length) for length in block)


def default_block(extent: Triple, patch: Triple = DEFAULT_PATCH) -> Vec3:
    """The fewest blocks of at most 2^25 voxels: the axis with the most patches is halved again and again.

    Every block face costs patches that both neighbours compute, so blocks are as large as memory allows, and as many
    patches long on each axis. Sides of more than one block are multiples of 64.

    Args:
        extent: voxels z y x.
        patch: the network's patch in the volume's voxels, z y x.
    """
    parts = [1, 1, 1]
    while prod(map(min, block := _sides(extent, parts), extent)) > DEFAULT_BLOCK_VOXELS:
        longest = max(range(3), key=lambda axis: block[axis] / patch[axis])
        parts[longest] += 1
    return block


def _sides(extent: Triple, parts: list[int]) -> Vec3:
    steps = vec3(16 if n == 1 else 64 for n in parts)
    return vec3(extent).ceil_div(steps * vec3(parts)) * steps


def block_shape(given: Triple | None, extent: Triple, patch: Triple = DEFAULT_PATCH) -> Vec3:
    """The block the user gave, or the default for this extent; refused when its labels would not fit."""
    block = vec3(given) if given else default_block(extent, patch)
    if prod(block) > LARGEST_BLOCK_VOXELS:
        raise BadInput(
            f"block.shape={list(block)}",
            f"a block holds at most 2^31 voxels, this one {prod(block):,}",
            "the fragments of a block are counted in 32 bits",
            f"For example {list(default_block(extent, patch))}.",
        )
    return block


def _chunk_length(length: int) -> int:
    if length <= CHUNK_LIMIT:
        return length
    divisors = [n for n in range(CHUNK_LIMIT, 0, -1) if length % n == 0]
    # A prime of more than 128 has no useful divisor: the whole block becomes the chunk.
    return divisors[0] if divisors[0] >= 16 else length
