"""Denoising held against the volume: the restorer, the mask, the sizes; everything checked, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.denoise.ops.cells import cell_shape
from pipeline.denoise.ops.damage import BITS
from pipeline.denoise.ops.restore import RestoreOp
from pipeline.denoise.settings import DenoiseSettings
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import CoarseMask, open_mask
from pipeline.model.restorer_spec import RestorerSpec, load_restorer_spec, restorer_path
from pipeline.store.volume import Volume

# Thick sections share little: a pale or blurred one tells the network more than what is made of its neighbours. Mouse,
# 40 nm, all kinds of damage, mean of three seeds: badly exposed sections cost 0.006 IoU as they are, 0.018 replaced (by
# the true mask), 0.002 relevelled. Lucchi at 5 nm gains from replacing all. Between 10 and 40 nm nothing was measured.
THICK_NM = 20.0
RELEVELLED_WHERE_THICK = ("blur", "intensity")
_SCANNED = vec3((16, 512, 512))  # voxels of a mask read at once while a sound one is looked for


@dataclass(frozen=True, slots=True)
class DenoisePlan:
    """What restores a volume before the network sees it.

    ``mask`` is the hand-made one; without it damage is detected, unless the restorer takes every slice from itself
    alone (``everywhere``). ``kinds`` are the bits of detected damage that is replaced, ``relevelled`` those of damage
    that only gets the grey levels of its neighbours.
    """

    settings: DenoiseSettings
    spec: RestorerSpec
    op: RestoreOp
    cell: Vec3
    mask: CoarseMask | None
    kinds: int
    relevelled: int

    @property
    def everywhere(self) -> bool:
        """Whether all voxels are restored."""
        return self.spec.kind == "noise2noise" and self.mask is None

    @property
    def detects(self) -> bool:
        """Whether damage is looked for."""
        return self.mask is None and not self.everywhere


def plan_denoising(
    settings: DenoiseSettings, source: Volume, voxel_size_nm: FloatVec3, address: str, batch: int = 1
) -> DenoisePlan | None:
    """What ``settings`` mean for a volume; None where they are off.

    Raises:
        BadInput: no such restorer, or one whose weights are not there; a volume of one slice; a mask of another shape,
            or one that leaves no sound voxel; a rim wider than a patch.
    """
    if settings.mode == "off":
        return None
    spec = load_restorer_spec(settings.model)
    # Here and without torch: else every worker would find out for itself.
    spec.weights_beside(restorer_path(settings.model))
    if spec.kind == "interpolation" and source.shape[0] < 2:
        raise BadInput(
            f"denoise {settings.mode} of {address}, a volume of one slice",
            "a slice is restored from its neighbours",
            "there is none",
            "Take a noise2noise model, which restores each slice from itself: denoise.model=PATH.json; or denoise=off.",
        )
    mask = None if settings.mask is None else open_mask(settings.mask, source, "the damage mask")
    if mask is not None and spec.kind == "interpolation":
        _require_sound(mask, settings)
    op = RestoreOp(
        extent=source.shape,
        patch=spec.patch,
        overlap=spec.overlap,
        multiple=spec.multiple,
        channels=spec.channels,
        max_gap=settings.max_gap,
        feather=0.0 if spec.kind == "noise2noise" and mask is None else settings.feather_nm,
        pixel=(voxel_size_nm[1], voxel_size_nm[2]),
        batch=batch,
    )
    _require_reach(op, settings)
    return DenoisePlan(settings, spec, op, cell_shape(voxel_size_nm), mask, *_bits(settings, voxel_size_nm))


def denoise_warnings(plan: DenoisePlan, voxel_size_nm: FloatVec3) -> Iterator[str]:
    """What may make denoising do harm; none of it stops a run."""
    if plan.spec.kind == "noise2noise" and voxel_size_nm[0] > THICK_NM:
        yield (
            f"{plan.spec.name} learnt each slice from the next, and sections of {voxel_size_nm[0]:g} nm differ by more "
            "than noise: it blurs what differs (mouse, 40 nm: IoU 0.66 with noise, 0.02 restored). Look at "
            "RUN/arrays/restored before you trust the result."
        )


def _bits(settings: DenoiseSettings, voxel_size_nm: FloatVec3) -> tuple[int, int]:
    """The bits of the kinds of damage that are replaced, and of those that are relevelled."""
    if settings.kinds:
        return sum(BITS[name] for name in set(settings.kinds)), 0
    relevelled = sum(BITS[name] for name in RELEVELLED_WHERE_THICK) if voxel_size_nm[0] > THICK_NM else 0
    return sum(BITS.values()) - relevelled, relevelled


def _require_reach(op: RestoreOp, settings: DenoiseSettings) -> None:
    """Refuse a rim wider than a patch: every block would read so much around it, or all of every slice."""
    widest = [n * size for n, size in zip(op.patch, op.pixel, strict=True)]
    if op.feather > min(widest):
        raise BadInput(
            f"denoise.feather_nm={settings.feather_nm:g}",
            f"the rim is at most as wide as a patch of the restorer, {op.patch[0]} x {op.patch[1]} pixels",
            "every block reads as far beyond its own, and what is wider is no rim but another image",
            f"The widest legal one is {int(min(widest))}.",
        )


def _require_sound(mask: CoarseMask, settings: DenoiseSettings) -> None:
    """Refuse a mask with no sound voxel; of any other only its first blocks are read."""
    volume = mask.volume
    if all(volume.read(block.core).all() for block in BlockGrid(volume.shape, _SCANNED)):
        raise BadInput(
            f"the damage mask {settings.mask}, in which every slice is flagged",
            "damage is restored from sound slices beside it",
            "there is none",
            "Flag less (nonzero is damaged, 0 is sound), or take a noise2noise model: denoise.model=PATH.json.",
        )
