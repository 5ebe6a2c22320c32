"""Denoising held against the volume: the restorer, the mask, the sizes; everything checked, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.coarse_mask import CoarseMask, open_mask
from pipeline.config import DenoiseSettings
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.model.restorer_spec import RestorerSpec, load_restorer_spec, restorer_path
from pipeline.model.spec import pinned_bytes
from pipeline.ops.damage import BITS
from pipeline.ops.inspect import cell_shape
from pipeline.ops.restore import RestoreOp
from pipeline.volume import Volume

# Mouse by SBEM, sections of 40 nm, 6 % of it blurred: IoU 0.734 as it is, 0.721 with that replaced (clean 0.735); 7 %
# missing: 0.707 and 0.723. Lucchi at 5 nm gains from replacing all kinds. Between 10 and 40 nm nothing was measured.
THICK_NM = 20.0
KEPT_WHERE_THICK = ("blur", "intensity")
_SCANNED: Vec3 = (16, 512, 512)  # voxels of a mask read at once while a sound one is looked for


@dataclass(frozen=True, slots=True)
class DenoisePlan:
    """What restores a volume before the network sees it.

    ``mask`` is the hand-made one; without it damage is detected, unless the restorer takes every slice from itself
    alone (``everywhere``). ``kinds`` are the bits of detected damage that is replaced.
    """

    settings: DenoiseSettings
    spec: RestorerSpec
    op: RestoreOp
    cell: Vec3
    mask: CoarseMask | None
    kinds: int

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
            or one that leaves no sound voxel.
    """
    if settings.mode == "off":
        return None
    spec = load_restorer_spec(settings.model)
    # Here and without torch: else every worker would find out for itself.
    pinned_bytes(restorer_path(settings.model).parent / spec.weights, spec.sha256, "weights")
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
    return DenoisePlan(settings, spec, op, cell_shape(voxel_size_nm), mask, _bits(settings, voxel_size_nm))


def located(plan: DenoisePlan, model: str, mask: str | None) -> DenoisePlan:
    """The same plan with absolute paths."""
    return replace(plan, settings=plan.settings.model_copy(update={"model": model, "mask": mask}))


def _bits(settings: DenoiseSettings, voxel_size_nm: FloatVec3) -> int:
    """The bits of the kinds of damage that are replaced."""
    thick = voxel_size_nm[0] > THICK_NM
    chosen = settings.kinds or [name for name in BITS if not (thick and name in KEPT_WHERE_THICK)]
    return sum(BITS[name] for name in set(chosen))


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
