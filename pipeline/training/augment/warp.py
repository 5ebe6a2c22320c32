"""Changes of the geometry in the plane, alike in all slices: rotate, rescale, scale jitter, elastic.

Each draws its part of a `Warp`, which says for every voxel of the result where in the source it comes from. Grey levels
are then interpolated bilinearly, once, however many changes came together; labels are fetched from the nearest voxel by
their index, so ids stay exact whatever their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.augment.chance import drawn, seeded
from pipeline.training.augment.settings import Augmentation, Elastic

Matrix = tuple[float, float, float, float]


@dataclass(frozen=True)
class Warp:
    """From voxels of the result to places in the source; both are counted from the centre.

    Attributes:
        matrix: yy, yx, xy, xx of the linear part.
        elastic: the smoothed displacement that is added in the source, or none.
        seed: of the displacement's noise.
    """

    matrix: Matrix = (1.0, 0.0, 0.0, 1.0)
    elastic: Elastic | None = None
    seed: int = 0

    @property
    def moves(self) -> bool:
        """Whether it is anything but the identity."""
        return self.matrix != (1.0, 0.0, 0.0, 1.0) or self.elastic is not None

    def reach(self, size: tuple[int, int]) -> tuple[float, float]:
        """How far from the centre of the source, in y and x, a result of `size` voxels looks."""
        yy, yx, xy, xx = (abs(entry) for entry in self.matrix)
        half_y, half_x = ((extent - 1) / 2 for extent in size)
        margin = margin_of(self.elastic) if self.elastic else 0
        return yy * half_y + yx * half_x + margin, xy * half_y + xx * half_x + margin


def margin_of(elastic: Elastic) -> int:
    """Voxels that a displaced voxel may lie beyond its place."""
    return int(elastic.alpha) + 1


def draw(
    generator: np.random.Generator, settings: Augmentation, names: tuple[str, ...] = ("turn", "stretch", "zoom", "bend")
) -> Warp:
    """The warp of one crop: elastic first, then rescale and scale jitter, then rotate."""
    warp = Warp()
    if "turn" in names and drawn(generator, settings.rotate.chance):
        angle = generator.uniform(0.0, 2.0 * math.pi)
        sine, cosine = math.sin(angle), math.cos(angle)
        warp = replace(warp, matrix=(cosine, -sine, sine, cosine))
    if "stretch" in names and drawn(generator, settings.rescale.chance):
        zoom_y, zoom_x = generator.uniform(*settings.rescale.factors, 2)
        warp = _zoomed(warp, float(zoom_y), float(zoom_x))
    if "zoom" in names and drawn(generator, settings.scale_jitter.chance):
        low, high = (math.log(factor) for factor in settings.scale_jitter.factors)
        zoom = math.exp(generator.uniform(low, high))
        warp = _zoomed(warp, zoom, zoom)
    if "bend" in names and drawn(generator, settings.elastic.chance):
        warp = replace(warp, elastic=settings.elastic, seed=int(generator.integers(2**63 - 1)))
    return warp


def _zoomed(warp: Warp, zoom_y: float, zoom_x: float) -> Warp:
    """What follows happens in the source, hence divides: an object looks larger when the steps there are smaller."""
    yy, yx, xy, xx = warp.matrix
    return replace(warp, matrix=(yy / zoom_y, yx / zoom_y, xy / zoom_x, xx / zoom_x))


def warped(raw: Tensor, instances: Tensor, warp: Warp, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The central (D, *size) of the warped volumes; places beyond the source take its border's value.

    Args:
        raw: float32 (D, H, W).
        instances: integers (D, H, W).
        warp: where each voxel comes from.
        size: height and width of the result.
    """
    if not warp.moves:
        return centre(raw, size), centre(instances, size)
    places = _places(warp, size, (raw.shape[1], raw.shape[2]), raw.device)
    return bilinear(raw, places), nearest(instances, places)


def centre(values: Tensor, size: tuple[int, int]) -> Tensor:
    """The central `size` voxels of the last two axes, as a view."""
    y, x = ((extent - inner) // 2 for extent, inner in zip(values.shape[-2:], size, strict=True))
    return values[..., y : y + size[0], x : x + size[1]]


def _places(warp: Warp, size: tuple[int, int], source: tuple[int, int], device: torch.device) -> Tensor:
    """(height, width, 2): y and x in the source, in voxels, of each voxel of the result."""
    y, x = (torch.arange(extent, device=device) - (extent - 1) / 2 for extent in size)
    yy, yx, xy, xx = warp.matrix
    places = torch.stack(
        [
            yy * y[:, None] + yx * x[None] + (source[0] - 1) / 2,
            xy * y[:, None] + xx * x[None] + (source[1] - 1) / 2,
        ],
        dim=-1,
    )
    if warp.elastic is None:
        return places
    field = _displacement(warp.elastic, warp.seed, source, device)
    return places + bilinear(field, places).permute(1, 2, 0)


def _displacement(elastic: Elastic, seed: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(2, height, width): smoothed uniform noise in +- alpha, in voxels; y and x."""
    noise = torch.rand((2, *size), generator=seeded(seed, device), device=device) * 2.0 - 1.0
    return gaussian(noise, elastic.sigma) * elastic.alpha


def gaussian(values: Tensor, sigma: float) -> Tensor:
    """Gaussian filter in the plane of float32 (N, H, W), cut at four sigma; the border's value goes on beyond it.

    As two matrix products: 30 ms for 32x256x256 on one core, where two one-dimensional convolutions took 247.
    """
    along_y, along_x = (_filter(size, sigma, values.device) for size in values.shape[-2:])
    return along_y @ values @ along_x.T


def _filter(size: int, sigma: float, device: torch.device) -> Tensor:
    """(size, size): row i holds the weights that make voxel i; the first and last voxel stand for all beyond them."""
    reach = max(1, round(4.0 * sigma))
    place = torch.arange(-reach, size + reach, device=device)
    steps = place[None] - torch.arange(size, device=device)[:, None]
    weights = torch.exp(-0.5 * (steps / sigma) ** 2) * (steps.abs() <= reach)
    weights = weights / weights.sum(1, keepdim=True)
    inside = weights[:, reach : reach + size].clone()
    inside[:, 0] += weights[:, :reach].sum(1)
    inside[:, -1] += weights[:, reach + size :].sum(1)
    return inside


def bilinear(values: Tensor, places: Tensor) -> Tensor:
    """float32 (D, H, W) at `places` (h, w, 2) -> (D, h, w); the slices are channels, so one grid serves them all."""
    height, width = values.shape[-2:]
    grid = torch.stack([(2.0 * places[..., 1] + 1.0) / width, (2.0 * places[..., 0] + 1.0) / height], dim=-1) - 1.0
    return functional.grid_sample(values[None], grid[None], "bilinear", padding_mode="border", align_corners=False)[0]


def nearest(labels: Tensor, places: Tensor) -> Tensor:
    """Integers (D, H, W) at the voxels nearest to `places` (h, w, 2) -> (D, h, w)."""
    height, width = labels.shape[-2:]
    y = places[..., 0].round().long().clamp(0, height - 1)
    x = places[..., 1].round().long().clamp(0, width - 1)
    taken = labels.reshape(labels.shape[0], -1).index_select(1, (y * width + x).flatten())
    return taken.view(labels.shape[0], *places.shape[:2])


def rotate(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """`settings.rotate` alone; the size stays."""
    return _alone("turn", raw, instances, generator, settings)


def rescale(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """`settings.rescale` alone; the size stays."""
    return _alone("stretch", raw, instances, generator, settings)


def scale_jitter(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """`settings.scale_jitter` alone; the size stays."""
    return _alone("zoom", raw, instances, generator, settings)


def elastic(
    raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """`settings.elastic` alone; the size stays."""
    return _alone("bend", raw, instances, generator, settings)


def _alone(
    name: str, raw: Tensor, instances: Tensor, generator: np.random.Generator, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    return warped(raw, instances, draw(generator, settings, (name,)), (raw.shape[1], raw.shape[2]))
