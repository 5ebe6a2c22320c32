"""What the network does on a volume: patch, overlap and scale, held against volume and models."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.image.resample import coarse_extent
from pipeline.model.ensemble import common_multiple, common_scale
from pipeline.model.spec import ModelSpec
from pipeline.predict.op import PredictOp
from pipeline.predict.settings import PredictSettings
from pipeline.predict.tta import variants
from pipeline.store.volume import Volume

HALVED_FOUR_TIMES = vec3((1, 16, 16))


def planned_op(
    given: PredictSettings,
    models: Sequence[str],
    specs: Sequence[ModelSpec],
    source: Volume,
    size: FloatVec3,
    address: str,
) -> PredictOp:
    """What the network does on this volume: the settings given, and the rest from the models.

    Args:
        given: what the user set.
        models: their names, for messages.
        specs: of the models, the first one leads.
        source: the volume.
        size: of its voxels, nm, z y x.
        address: of the volume, for messages.

    Raises:
        BadInput: the volume is smaller than a patch, or patch and overlap do not fit.
    """
    scale = vec3(given.scale) if given.scale else common_scale(models, specs, size)
    extent = coarse_extent(source.shape, scale)
    multiple = common_multiple(specs, any(variant.transposed for variant in variants(given.tta)))
    _require_room(extent, multiple, address)
    most = extent // multiple * multiple
    patch = vec3(given.patch) if given.patch else most.min(specs[0].patch)
    overlap = (patch // 2).min(specs[0].overlap) if given.overlap is None else given.overlap
    # One patch spans the axis: there is nothing to overlap with, and a smaller stride would only compute it twice.
    overlap = vec3(o if p < e else 0 for o, p, e in zip(overlap, patch, extent, strict=True))
    raise_all(_patch_problems(patch, overlap, extent, multiple))
    return PredictOp(source.shape, scale, patch, overlap, given.weights, given.batch, given.tta)


def _require_room(extent: Vec3, multiple: Vec3, address: str) -> None:
    if not multiple.all_at_most(extent):
        least = "16 voxels in y and x" if multiple == HALVED_FOUR_TIMES else f"{list(multiple)} voxels"
        raise BadInput(
            f"{address} of {extent[0]}x{extent[1]}x{extent[2]} voxels at the model's resolution",
            f"a volume must be at least one patch, and a patch at least {least}",
            _why(multiple),
            "Give a larger volume, or predict at its own resolution: --set predict.scale=[1,1,1].",
        )


def _patch_problems(patch: Vec3, overlap: Vec3, extent: Vec3, multiple: Vec3) -> list[BadInput]:
    problems = []
    legal = vec3(_legal_side(*sides) for sides in zip(patch, extent, multiple, strict=True))
    if legal != patch:
        rule = (
            "y and x multiples of 16" if multiple == HALVED_FOUR_TIMES else f"its sides multiples of {list(multiple)}"
        )
        problems.append(
            BadInput(
                f"predict.patch={list(patch)}",
                f"a patch must fit into the volume {list(extent)} (at the model's resolution), {rule}",
                _why(multiple),
                f"The nearest legal patch is {list(legal)}.",
            )
        )
    if not overlap.all_below(patch):
        problems.append(
            BadInput(
                f"predict.overlap={list(overlap)}",
                f"patches of {list(patch)} must overlap by less than their size",
                "they would never advance",
                f"The largest legal overlap is {list(overlap.min(patch - 1))}.",
            )
        )
    return problems


def _legal_side(side: int, extent: int, multiple: int) -> int:
    return min(max(multiple, round(side / multiple) * multiple), extent // multiple * multiple)


def _why(multiple: Vec3) -> str:
    if multiple == HALVED_FOUR_TIMES:
        return "the network halves y and x four times"
    return "every network takes such patches only, also with y and x swapped where tta does that"
