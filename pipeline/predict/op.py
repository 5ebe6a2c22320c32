"""The network over a volume: every voxel's probabilities from the same patches, whatever the blocks.

A block computes every patch whose weights reach into its core, sums weight times probability in float32 in lattice
order, divides, interpolates back to the volume's own voxels and quantises once. Two runs with different blocks, workers
or executors therefore store the same bytes (on one kind of device and library).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Float32, UInt8
from pipeline.geometry import Box, Vec3, vec3
from pipeline.image.lattice import Lattice, WeightKind
from pipeline.image.padding import EMPTY_WINDOW, empty_voxels
from pipeline.image.quantise import quantised, rounded
from pipeline.image.resample import block_mean, coarse_box, coarse_extent, fine_box, interpolate
from pipeline.predict.tta import Tta, mean_probability, variants


class Network(Protocol):
    """What the op needs of a loaded model."""

    def predict(self, patches: Float32) -> Float32:
        """(N, 1, D, H, W) normalised raw -> (N, 2, D, H, W) probabilities: semantic, boundary."""
        ...


class Normalise(Protocol):
    """Grey levels -> the network's input, one rule for the whole volume."""

    def __call__(self, grey: UInt8) -> Float32:
        """float32 of the same shape."""
        ...


class Input(NamedTuple):
    """A network, and how its own input is made from grey levels."""

    normalise: Normalise
    network: Network


@dataclass(frozen=True, slots=True)
class PredictOp:
    """Geometry of the prediction of one volume.

    Args:
        extent: the volume, voxels z y x.
        scale: voxels averaged to one before the network.
        patch, overlap: in scaled voxels.
        weights: how overlapping patches are blended.
        batch: patches a network call; the last call is filled up, so that every call has one shape.
        tta: mirrored and transposed variants of each patch that are averaged; 0 for the patch as it is.
    """

    extent: Vec3
    scale: Vec3
    patch: Vec3
    overlap: Vec3
    weights: WeightKind
    batch: int = 1
    tta: Tta = 0

    version = 1

    @property
    def lattice(self) -> Lattice:
        """The patches, in scaled voxels."""
        return Lattice(coarse_extent(self.extent, self.scale), self.patch, self.overlap)

    def needed(self, core: Box) -> Box:
        """The scaled voxels whose probabilities the core needs: its own, and one more for the interpolation."""
        halo = vec3(1 if s > 1 else 0 for s in self.scale)
        return coarse_box(core, self.scale).grown(halo).clipped(Box.of_shape(self.lattice.extent))

    def patches(self, core: Box) -> list[Box]:
        """The patches, in scaled voxels, that a block with this core computes."""
        return list(self.lattice.touching(self.needed(core), self.weights))

    def read_box(self, core: Box) -> Box:
        """The voxels a block with this core reads."""
        patches = self.patches(core)
        hull = Box(
            vec3(min(p.start[a] for p in patches) for a in range(3)),
            vec3(max(p.stop[a] for p in patches) for a in range(3)),
        )
        rim = EMPTY_WINDOW.ceil_div(self.scale)
        return fine_box(hull.grown(rim).clipped(Box.of_shape(self.lattice.extent)), self.scale, self.extent)

    def __call__(
        self, raw: npt.NDArray[Any], read: Box, core: Box, normalise: Normalise, network: Network
    ) -> tuple[UInt8, UInt8, int]:
        """``averaged`` of one network: ``normalise`` makes its input, ``network`` is the loaded model."""
        return self.averaged(raw, read, core, [Input(normalise, network)])

    def averaged(
        self, raw: npt.NDArray[Any], read: Box, core: Box, inputs: Sequence[Input]
    ) -> tuple[UInt8, UInt8, int]:
        """Semantic and boundary probabilities of ``core`` as uint8, and the number of patches computed.

        The probabilities of a patch are the mean over all networks and variants, in float32 and in one fixed order.

        Args:
            raw: grey levels 0..255 of ``read`` (= ``read_box(core)``), uint8 or float32.
            read, core: boxes in the volume's voxels.
            inputs: the networks, each with its own normalisation.
        """
        empty = empty_voxels(raw)
        if empty[core.slices(read.start)].all():
            nothing = np.zeros(core.shape, np.uint8)
            return nothing, nothing, 0
        coarse = rounded(block_mean(raw, self.scale))
        held = coarse_box(read, self.scale)
        needed = self.needed(core)
        blended, computed = self._blended(coarse, held, needed, inputs)
        mask = ~empty[core.slices(read.start)]
        semantic, boundary = (quantised(interpolate(b, needed, core, self.scale)) * mask for b in blended)
        return semantic, boundary, computed

    def _blended(self, coarse: UInt8, held: Box, needed: Box, inputs: Sequence[Input]) -> tuple[Float32, int]:
        total = np.zeros((2, *needed.shape), np.float32)
        weight = np.zeros(needed.shape, np.float32)
        computed = 0
        for group in _groups(self.lattice.touching(needed, self.weights), self.batch):
            probabilities = self._probabilities([coarse[p.slices(held.start)] for p in group], inputs)
            for patch, probability in zip(group, probabilities, strict=True):
                inside = patch.clipped(needed)
                w = self.lattice.weights(patch, self.weights)[inside.slices(patch.start)]
                weight[inside.slices(needed.start)] += w
                if probability is not None:
                    computed += 1
                    total[(slice(None), *inside.slices(needed.start))] += (
                        w * probability[(slice(None), *inside.slices(patch.start))]
                    )
        return total / weight, computed

    def _probabilities(self, patches: list[UInt8], inputs: Sequence[Input]) -> list[Float32 | None]:
        filled = [index for index, patch in enumerate(patches) if patch.any()]
        result: list[Float32 | None] = [None] * len(patches)
        if filled:
            grey = [patches[index] for index in filled]
            stacks = [(network.predict, self._stacked(grey, normalise)) for normalise, network in inputs]
            for index, probability in zip(filled, mean_probability(stacks, variants(self.tta)), strict=False):
                result[index] = probability
        return result

    def _stacked(self, patches: list[UInt8], normalise: Normalise) -> Float32:
        stack = np.zeros((self.batch, 1, *self.patch), np.float32)
        for place, patch in enumerate(patches):
            stack[place, 0] = normalise(patch)
        return stack


def _groups(boxes: Iterator[Box], size: int) -> Iterator[list[Box]]:
    while group := list(islice(boxes, size)):
        yield group
