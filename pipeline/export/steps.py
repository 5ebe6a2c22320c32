"""The layers of a run as Neuroglancer precomputed: one step, a stage for every mip of every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.engine.arrays import is_whole_json
from pipeline.engine.directory import RunDirectory
from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.errors import BadInput
from pipeline.export.check import export_problems
from pipeline.export.levels import Layer, create_layers, export_levels
from pipeline.export.settings import ExportSettings
from pipeline.export.stage import ExportStage

OF_DENOISING = ("restored", "replaced")


def export_part(
    directory: RunDirectory,
    layers: Mapping[str, Exportable],
    settings: ExportSettings,
    old_names: Mapping[str, str] | None = None,
) -> Part:
    """The step that writes the chosen layers, every one at every mip, fine to coarse.

    Args:
        directory: of the run.
        layers: all that there are.
        settings: which of them, and in what chunks.
        old_names: names that layers have in this run because it was begun by an earlier version.

    Raises:
        BadInput: a layer is chosen that this run does not have.
    """
    names = old_names or {}
    chosen = {names.get(name, name): layers[name] for name in _chosen(settings.layers, layers)}
    wanted = [Layer(name, layer.kind, layer.volume) for name, layer in chosen.items()]
    levels = export_levels(str(directory.precomputed), wanted, settings.chunk)
    stages = tuple(ExportStage(level, upstream=chosen[level.layer].fingerprint) for level in levels)
    prepare, check = partial(_create_layers, stages), partial(_problems, stages)
    return Part(steps=(Step("export", stages, prepare=prepare, check=check),))


def exported_names(settings: ExportSettings, denoises: bool) -> list[str]:
    """The layers that are asked for; where nothing is restored those of denoising are none."""
    return [name for name in settings.layers if denoises or name not in OF_DENOISING]


def _chosen(names: Sequence[str], layers: Mapping[str, Exportable]) -> list[str]:
    """The names of the layers to write; of the default, all that there are."""
    there = [name for name in names if name in layers]
    if len(there) == len(names) or tuple(names) == ExportSettings().layers:
        return there
    nearest = ",".join(there or ["segmentation"])
    raise BadInput(
        f"export.layers=[{','.join(names)}]",
        f"{' and '.join(OF_DENOISING)} are layers of denoising, which is off",
        "where nothing is restored there is nothing to write",
        f"Leave them out, export.layers=[{nearest}], or restore what is damaged: denoise=auto.",
    )


def _create_layers(stages: Sequence[ExportStage]) -> None:
    missing = [stage for stage in stages if not is_whole_json(Path(stage.level.target.url) / "info")]
    create_layers([stage.level for stage in missing], [stage.name for stage in missing])


def _problems(stages: Sequence[ExportStage]) -> list[str]:
    return [f"{stage.name}: {problem}" for stage in stages for problem in export_problems(stage.level)]
