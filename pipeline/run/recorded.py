"""What ``run.json`` records of a configuration: all that decides the result, with addresses that hold in any folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.engine.directory import RunDirectory
from pipeline.engine.manifest import recorded
from pipeline.errors import RunConflict
from pipeline.export.settings import OLD_NAMES
from pipeline.export.steps import exported_names
from pipeline.image.mask import CoarseMask, open_mask
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.settings import Settings, parse_settings
from pipeline.store.formats.address import is_remote
from pipeline.store.volume import Volume


def absolute_address(address: str) -> str:
    """An address that means the same in any folder: a run is verified and resumed from anywhere."""
    prefix = "precomputed://" if address.startswith("precomputed://") else ""
    rest = address.removeprefix(prefix)
    if is_remote(rest) or rest.startswith("file://"):
        return address
    return prefix + str(Path(rest).expanduser().absolute())


def absolute_model(model: str) -> str:
    """The absolute path of a model's file; the name of a shipped model stays."""
    return str(Path(model).absolute()) if model.endswith(".json") else model


def with_absolute_addresses(config: RunConfig) -> RunConfig:
    """The same configuration with absolute addresses."""
    models = tuple(map(absolute_model, config.models))
    denoise = config.denoise
    if denoise.mode != "off":
        mask = None if denoise.mask is None else absolute_address(denoise.mask)
        denoise = denoise.model_copy(update={"model": absolute_model(denoise.model), "mask": mask})
    model = models[0] if len(models) == 1 else models
    return config.model_copy(update={"input": absolute_address(config.input), "model": model, "denoise": denoise})


def old_layer_names(directory: RunDirectory) -> dict[str, str]:
    """The names that layers have in a directory whose run was begun when they were called otherwise."""
    try:
        begun = recorded(directory)["settings"] if directory.manifest.exists() else {}
    except RunConflict:  # said where the directory is held
        return {}
    layers = begun.get("export", {}).get("layers", [])
    return {name: old for name, old in OLD_NAMES.items() if old in layers}


def recorded_settings(config: RunConfig | InstancesConfig, old_names: Mapping[str, str]) -> dict[str, Any]:
    """What is compared on resume. Where blocks run changes no result: a run may resume on another cluster."""
    settings = config.model_dump(mode="json", exclude={"output", "cluster"})
    if isinstance(config, RunConfig) and config.denoise.mode == "off":  # as it was before there was any
        del settings["denoise"]
        settings["export"]["layers"] = exported_names(config.export, denoises=False)
    settings["export"]["layers"] = [old_names.get(name, name) for name in settings["export"]["layers"]]
    if isinstance(config, InstancesConfig):
        settings.update({name: absolute_address(getattr(config, name)) for name in ("semantic", "boundary")})
    if config.instances.tissue_mask is not None:
        settings["instances"]["tissue_mask"] = absolute_address(config.instances.tissue_mask)
    return settings


def configured(settings: dict[str, Any], output: str) -> RunConfig | InstancesConfig:
    """The configuration that ``recorded_settings`` came from; what else stands there are identities of its inputs.

    Raises:
        BadInput: the settings are those of another version.
    """
    if "semantic" in settings:
        return parse_settings(InstancesConfig, {**_known(settings, InstancesConfig), "output": output})
    return parse_settings(RunConfig, {**_known(settings, RunConfig), "output": output})


def _known(settings: dict[str, Any], kind: type[Settings]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in kind.model_fields}


def tissue_mask(config: RunConfig | InstancesConfig, source: Volume) -> CoarseMask | None:
    """The tissue mask of a configuration, if it names one.

    Raises:
        BadInput: see ``pipeline.image.mask.open_mask``.
    """
    address = config.instances.tissue_mask
    return None if address is None else open_mask(absolute_address(address), source, "the tissue mask")
