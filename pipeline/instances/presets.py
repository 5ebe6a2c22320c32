"""The instance settings resolved: presets, probabilities as uint8 levels, nanometres as voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod
from typing import Any

from pipeline.geometry import ORIGIN, FloatVec3, Vec3, vec3
from pipeline.instances.ops.grow import halo
from pipeline.instances.plan import InstancePlan
from pipeline.instances.settings import InstanceSettings
from pipeline.model.spec import ModelSpec, Thresholds

NM3_PER_UM3 = 1e9
COMMON: dict[str, Any] = {"watershed_halo_nm": 250.0, "fill_holes_nm": 0.0}
PUBLISHED: dict[str, Any] = {
    **COMMON,
    "seed_above": 0.9,
    "boundary_below": 0.8,
    "connectivity": 6,
    "minimum_seed_voxels": 2,
    "grow": "dilate",
    "mask_above": 0.9,
    "grow_nm": 0.0,
    "minimum_voxels": 128,
}
BC_WATERSHED: dict[str, Any] = {
    **COMMON,
    "seed_above": 0.9,
    "boundary_below": 0.8,
    "connectivity": 26,
    "minimum_seed_voxels": 32,
    "grow": "watershed",
    "mask_above": 0.85,
    "grow_nm": 0.0,
    "minimum_voxels": 128,
}


def instance_plan(settings: InstanceSettings, voxel_size_nm: FloatVec3, spec: ModelSpec | None) -> InstancePlan:
    """Resolve the preset; convert probabilities to uint8 levels, um^3 and nanometres to voxels.

    Published: T1 0.9 and T2 0.8 on truncated uint8 maps, 6-connected, isolated voxels dropped, dilated by 1x7x7, then
    < 128 voxels dropped (reference: post-processing of the MitoEM2021 challenge code). ``bc_watershed``: the MitoEM
    baseline of pytorch_connectomics. Default: the thresholds of the model ``spec``, or those of any model without one.

    A smallest volume is rounded up to whole voxels, a length down, with a little to spare for the rounding of floats.
    """
    base = _base(settings, spec)
    values = {**base, **{name: getattr(settings, name) for name in base if getattr(settings, name) is not None}}
    kind = values["grow"]
    if kind == "mask" and not any(halo(values["grow_nm"], voxel_size_nm)):
        kind = "none"
    return InstancePlan(
        seed_above=int(255 * values["seed_above"]),
        boundary_below=int(255 * values["boundary_below"]),
        connectivity=values["connectivity"],
        grow=kind,
        mask_above=int(255 * values["mask_above"]),
        grow_nm=float(values["grow_nm"]) if kind == "mask" else 0.0,
        voxel_size_nm=voxel_size_nm,
        watershed_halo=_voxels(values["watershed_halo_nm"], voxel_size_nm) if kind == "watershed" else ORIGIN,
        fill_holes=_voxels(values["fill_holes_nm"], voxel_size_nm),
        minimum_voxels=_minimum_voxels(settings, values, voxel_size_nm),
        minimum_seed_voxels=values["minimum_seed_voxels"],
        drop_border=settings.drop_border,
        tissue_fraction=settings.tissue_fraction,
        join_gap=settings.join_gap,
        join_overlap=settings.join_overlap,
    )


def _base(settings: InstanceSettings, spec: ModelSpec | None) -> dict[str, Any]:
    if settings.preset != "default":
        return PUBLISHED if settings.preset == "published" else BC_WATERSHED
    thresholds = Thresholds() if spec is None else spec.thresholds
    return {
        **COMMON,
        "seed_above": thresholds.seed_semantic,
        "boundary_below": thresholds.seed_boundary,
        "connectivity": 6,
        "minimum_seed_voxels": 1,
        "grow": "mask",
        "mask_above": thresholds.semantic,
        "grow_nm": thresholds.grow_nm,
        "minimum_um3": thresholds.minimum_um3,
    }


def _minimum_voxels(settings: InstanceSettings, values: dict[str, Any], voxel_size_nm: FloatVec3) -> int:
    """The smallest whole instance: what was given in voxels or um^3, else that of the preset."""
    if settings.minimum_voxels is not None:
        return settings.minimum_voxels
    volume = settings.minimum_um3 if settings.minimum_um3 is not None else values.get("minimum_um3")
    if volume is None:
        return int(values["minimum_voxels"])
    return ceil(volume * NM3_PER_UM3 / prod(voxel_size_nm) * (1 - 1e-9))


def _voxels(length_nm: float, voxel_size_nm: FloatVec3) -> Vec3:
    return vec3(int(length_nm / size + 1e-6) for size in voxel_size_nm)


def threshold_warnings(settings: InstanceSettings, size: FloatVec3, specs: Sequence[ModelSpec]) -> Iterator[str]:
    """Said where the models of an ensemble recommend other thresholds than the first one, and none are set."""
    plans = [instance_plan(settings, size, spec) for spec in specs]
    others = [spec.name for spec, plan in zip(specs, plans, strict=True) if plan != plans[0]]
    if others:
        yield (
            f"the models recommend different thresholds: those of {specs[0].name}, the first, are used, not those of "
            f"{', '.join(others)}. Set instances.* to choose."
        )
