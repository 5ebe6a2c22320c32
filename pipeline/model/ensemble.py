"""The networks of a run: one, or several whose probabilities are averaged. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.model.normalisation import Statistics
from pipeline.model.spec import ModelSpec, load_spec, spec_path

VOXEL_SIZE_RATIO = 1.5
# What two specifications of the same function may differ in.
_NOT_THE_FUNCTION = {"name", "description", "thresholds", "patch", "overlap", "weights", "voxel_size_nm"}


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a run.

    Attributes:
        model: a shipped name, or the path of a specification.
        spec: what it said when the run was planned.
        statistics: of the volume, by this network's own normalisation.
    """

    model: str
    spec: ModelSpec
    statistics: Statistics

    @property
    def function(self) -> dict[str, Any]:
        """All that decides this network's probabilities; for fingerprints."""
        return {
            "model": self.spec.model_dump(mode="json", exclude={"description", "thresholds"}),
            "statistics": tuple(self.statistics),
        }


def one_or_several(values: Sequence[str]) -> str | tuple[str, ...]:
    """One value as it is, several as a tuple: as a configuration and a report name the models of a run."""
    return values[0] if len(values) == 1 else tuple(values)


def load_members(models: Sequence[str]) -> tuple[ModelSpec, ...]:
    """The specifications of all models, in order, their weights present and of the right hash.

    Raises:
        BadInput: one line for every model that is unknown or damaged, or that is there twice.
    """
    specs, problems = [], []
    for model in models:
        try:
            spec = load_spec(model)
            # Here and without torch: else every worker would find out for itself.
            spec.weights_beside(spec_path(model))
        except BadInput as problem:
            problems.append(problem)
        else:
            specs.append(spec)
    raise_all(problems)
    raise_all(_repeated(models, specs))
    return tuple(specs)


def common_scale(models: Sequence[str], specs: Sequence[ModelSpec], voxel_size_nm: FloatVec3) -> Vec3:
    """The voxels (z y x) averaged to one before the networks, the same for all of them.

    Raises:
        BadInput: two models need different ones.
    """
    scales = [scale_of(spec, voxel_size_nm) for spec in specs]
    problems = [
        BadInput(
            f"model {model!r} of {_by(spec.voxel_size_nm)} nm beside {models[0]!r} of {_by(specs[0].voxel_size_nm)} nm",
            "models that are averaged must see the same voxels",
            f"voxels of {_by(voxel_size_nm)} nm are averaged {_by(scale)} for the one and {_by(scales[0])} for the "
            "other",
            f"Take models of one voxel size, or give the averaging for all: --set 'predict.scale={list(scales[0])}'.",
        )
        for model, spec, scale in zip(models, specs, scales, strict=True)
        if scale != scales[0]
    ]
    raise_all(problems)
    return scales[0]


def scale_of(spec: ModelSpec, voxel_size_nm: FloatVec3) -> Vec3:
    """The voxels (z y x) that make about one voxel of the model."""
    return vec3(round(m / s) for m, s in zip(spec.voxel_size_nm, voxel_size_nm, strict=True)).max(1)


def common_multiple(specs: Sequence[ModelSpec], transposed: bool) -> Vec3:
    """What a patch, z y x, must be a multiple of for every model, and with y and x swapped where that is done."""
    z, y, x = (lcm(*sides) for sides in zip(*(spec.multiple for spec in specs), strict=True))
    return vec3((z, lcm(y, x), lcm(y, x)) if transposed else (z, y, x))


def scale_warnings(scale: Vec3, voxel_size_nm: FloatVec3, specs: Sequence[ModelSpec]) -> Iterator[str]:
    """A sentence for each model that was trained on voxels of quite another size than it will see."""
    used = [s * v for s, v in zip(scale, voxel_size_nm, strict=True)]
    for spec in specs:
        # Without z: the models are trained on isotropic and anisotropic sections alike.
        ratios = [u / m for u, m in zip(used[1:], spec.voxel_size_nm[1:], strict=True)]
        if all(1 / VOXEL_SIZE_RATIO <= ratio <= VOXEL_SIZE_RATIO for ratio in ratios):
            continue
        best = scale_of(spec, voxel_size_nm)
        mip = max(0, round(best[1]).bit_length() - 1)
        yield (
            f"the network sees voxels of {_by(used)} nm, {spec.name} was trained at {_by(spec.voxel_size_nm)} nm, more "
            f"than {VOXEL_SIZE_RATIO:g} times different: expect worse results. Nearest: mip {mip} of this volume "
            f"(predict.scale={list(best)})."
        )


def _repeated(models: Sequence[str], specs: Sequence[ModelSpec]) -> list[BadInput]:
    functions = [spec.model_dump(mode="json", exclude=_NOT_THE_FUNCTION) for spec in specs]
    firsts = [functions.index(function) for function in functions]
    return [
        BadInput(
            f"model {models[place]!r}" + ("" if models[place] == models[first] else f", the same as {models[first]!r}"),
            "each model of an ensemble is given once",
            "averaging a network with itself changes nothing and costs its time again",
            "Leave it out.",
        )
        for place, first in enumerate(firsts)
        if place != first
    ]


def _by(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)
