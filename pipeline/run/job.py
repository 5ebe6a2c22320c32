"""A job: a checked configuration with its directory and steps; a whole run, or instances from two stored maps."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.denoise.plan import located
from pipeline.denoise.steps import LAYERS as DENOISED_LAYERS
from pipeline.denoise.steps import denoise_steps, denoising_facts
from pipeline.engine.blocks import block_shape, chunk_shape
from pipeline.engine.directory import RunDirectory, local_directory
from pipeline.engine.finished import require_complete_array
from pipeline.engine.manifest import claim, recognised
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.step import Step
from pipeline.errors import BadInput
from pipeline.export.settings import ExportSettings
from pipeline.grid import BlockGrid
from pipeline.image.frame import Frame
from pipeline.image.grey import sample_boxes
from pipeline.image.mask import CoarseMask, open_mask
from pipeline.image.quantise import to_uint8
from pipeline.instances.presets import instance_plan
from pipeline.instances.steps import Labelling, Maps, instance_steps
from pipeline.model.ensemble import one_or_several
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.plan import Plan, make_plan
from pipeline.run.steps import export_step, predict_step
from pipeline.run.verify import is_finished
from pipeline.store.formats import Kind
from pipeline.store.formats.address import is_remote
from pipeline.store.identity import digest, identity, mask_identity, source_fingerprint
from pipeline.store.volume import Volume, open_volume, required_voxel_size

IDENTITIES = ("source", "maps", "model_sha256", "restorer_sha256", "tissue", "damage")
"""What stands among the settings in ``run.json`` and is no setting: what the files were that they name."""

COPY_AFTERWARDS = "Run into a directory and copy RUN/precomputed to the bucket afterwards: teramito convert."


@dataclass(frozen=True)
class Job:
    """What there is to do and where; ``manifest`` becomes ``run.json``, ``facts`` go into the report."""

    directory: RunDirectory
    steps: tuple[Step, ...]
    cluster: ClusterSettings
    manifest: Mapping[str, Any]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def require_place(self) -> None:
        """Refuse a directory that holds anything but this run; writes nothing.

        Raises:
            RunConflict: see ``pipeline.engine.manifest.recognised``.
        """
        recognised(self.directory, self.manifest)

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Hold the directory; yields True when the job was finished before and there is nothing to do.

        Raises:
            RunConflict: another process works there, or the directory holds another configuration.
        """
        self.require_place()  # before the lock, which is a file, goes into somebody else's directory
        with self.directory.locked():
            claim(self.directory, self.manifest)
            yield is_finished(self.directory)


def run_job(config: RunConfig) -> tuple[Job, Plan]:
    """The whole way: predict, instances, export.

    Raises:
        BadInput: the configuration cannot work on this volume.
    """
    directory = local_directory(config.output, COPY_AFTERWARDS)
    plan = make_plan(config)  # its refusals name paths as they were given; everything after takes them as absolute
    plan = _located(plan)
    config = plan.config
    frame = Frame(directory, plan.source, plan.grid, plan.chunks, plan.grey)
    denoise, seen = denoise_steps(frame, plan.denoising, config.predict.device)
    predict, maps = predict_step(plan, directory, seen)
    tissue = _tissue(config, plan.source)
    labelling = Labelling(directory, plan.grid, plan.chunks, plan.instances, tissue)
    instances, segmentation, final = instance_steps(labelling, maps)
    layers: dict[str, tuple[Kind, Volume, str]] = {
        "raw": ("image", plan.source, source_fingerprint(plan.source)),
        **seen.layers,
        "semantic": ("image", maps.semantic, maps.fingerprint),
        "boundary": ("image", maps.boundary, maps.fingerprint),
        "segmentation": ("segmentation", segmentation, final),
    }
    chosen = {name: layers[name] for name in _chosen(config.export.layers, layers)}
    steps = (*denoise, predict, *instances, export_step(directory, chosen, config.export.chunk))
    hashes = one_or_several([member.spec.sha256 for member in plan.members])
    facts = {
        "input": config.input,
        "model": one_or_several([member.spec.name for member in plan.members]),
        "model_sha256": hashes,
        "tta": plan.op.tta,
        "extent": list(plan.source.shape),
        "voxel_size_nm": list(plan.voxel_size_nm),
        "block": list(plan.grid.block),
        **denoising_facts(plan.denoising, plan.source.shape),
        "warnings": list(plan.warnings),
    }
    damage = None if plan.denoising is None else plan.denoising.mask
    identities = {**_identity_of(tissue), **({} if damage is None else {"damage": mask_identity(damage.volume)})}
    restorer = {} if plan.denoising is None else {"restorer_sha256": plan.denoising.spec.sha256}
    settings = {
        **_settings(config),
        "source": identity(plan.source),
        "model_sha256": hashes,
        **restorer,
        **identities,
    }
    return Job(directory, steps, config.cluster, _manifest(settings, facts), facts, plan.warnings), plan


def instances_job(config: InstancesConfig) -> Job:
    """Instances from two maps: all steps from label on, and export of the segmentation.

    Raises:
        BadInput: the maps differ in shape, are no probability maps, or have no voxel size.
    """
    directory = local_directory(config.output, COPY_AFTERWARDS)
    semantic, boundary = (open_volume(url, config.voxel_size_nm) for url in (config.semantic, config.boundary))
    _require_maps(config, semantic, boundary)
    size = required_voxel_size(semantic, config.semantic)
    grid = BlockGrid(semantic.shape, block_shape(config.block.shape, semantic.shape))
    fingerprint = digest({"semantic": source_fingerprint(semantic), "boundary": source_fingerprint(boundary)})
    settings = instance_plan(config.instances, size, None)
    tissue = _tissue(config, semantic)
    labelling = Labelling(directory, grid, chunk_shape(grid.block), settings, tissue)
    steps, segmentation, final = instance_steps(labelling, Maps(semantic, boundary, fingerprint))
    layer: dict[str, tuple[Kind, Volume, str]] = {"segmentation": ("segmentation", segmentation, final)}
    facts = {
        "semantic": config.semantic,
        "boundary": config.boundary,
        "extent": list(semantic.shape),
        "voxel_size_nm": list(size),
        "block": list(grid.block),
    }
    places = {name: _absolute(getattr(config, name)) for name in ("semantic", "boundary")}
    maps = [identity(semantic), identity(boundary)]
    decided = {**_settings(config), **places, "maps": maps, **_identity_of(tissue)}
    whole = (*steps, export_step(directory, layer, config.export.chunk))
    return Job(directory, whole, config.cluster, _manifest(decided, facts), facts)


def _chosen(names: Sequence[str], layers: Container[str]) -> list[str]:
    """The names of the layers to write; of the default, all that there are."""
    there = [name for name in names if name in layers]
    if len(there) == len(names) or tuple(names) == ExportSettings().layers:
        return there
    nearest = ",".join(there or ["segmentation"])
    raise BadInput(
        f"export.layers=[{','.join(names)}]",
        f"{' and '.join(DENOISED_LAYERS)} are layers of denoising, which is off",
        "where nothing is restored there is nothing to write",
        f"Leave them out, export.layers=[{nearest}], or restore what is damaged: denoise=auto.",
    )


def _absolute(address: str) -> str:
    """An address that means the same in any folder: a run is verified and resumed from anywhere."""
    prefix = "precomputed://" if address.startswith("precomputed://") else ""
    rest = address.removeprefix(prefix)
    return (
        address if is_remote(rest) or rest.startswith("file://") else prefix + str(Path(rest).expanduser().absolute())
    )


def _located(plan: Plan) -> Plan:
    """The same plan with absolute paths."""
    members = tuple(replace(member, model=_absolute_model(member.model)) for member in plan.members)
    models = one_or_several([member.model for member in members])
    config = plan.config.model_copy(update={"input": _absolute(plan.config.input), "model": models})
    if plan.denoising is None:
        return replace(plan, config=config, members=members)
    denoising = located(plan.denoising, _absolute_model(config.denoise.model), _absolute_mask(config.denoise.mask))
    config = config.model_copy(update={"denoise": denoising.settings})
    return replace(plan, config=config, members=members, denoising=denoising)


def _absolute_mask(mask: str | None) -> str | None:
    return None if mask is None else _absolute(mask)


def _absolute_model(model: str) -> str:
    return str(Path(model).absolute()) if model.endswith(".json") else model


def _settings(config: RunConfig | InstancesConfig) -> dict[str, Any]:
    # Where blocks run does not change what comes out: a run may resume on another cluster.
    settings = config.model_dump(mode="json", exclude={"output", "cluster"})
    if isinstance(config, RunConfig) and config.denoise.mode == "off":  # as it was before there was any
        del settings["denoise"]
        settings["export"]["layers"] = [n for n in settings["export"]["layers"] if n not in DENOISED_LAYERS]
    if config.instances.tissue_mask is not None:
        settings["instances"]["tissue_mask"] = _absolute(config.instances.tissue_mask)
    return settings


def _tissue(config: RunConfig | InstancesConfig, source: Volume) -> CoarseMask | None:
    address = config.instances.tissue_mask
    return None if address is None else open_mask(_absolute(address), source, "the tissue mask")


def _identity_of(tissue: CoarseMask | None) -> dict[str, Any]:
    return {} if tissue is None else {"tissue": identity(tissue.volume)}


def _manifest(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"teramito": __version__, "settings": json.loads(json.dumps(settings)), **facts}


def _require_maps(config: InstancesConfig, semantic: Volume, boundary: Volume) -> None:
    if semantic.shape != boundary.shape:
        raise BadInput(
            f"{config.semantic} of {semantic.shape} and {config.boundary} of {boundary.shape}",
            "the two maps must have the same shape",
            "they are compared voxel by voxel",
            "Crop one of them: PATH[z0:z1,y0:y1,x0:x1].",
        )
    for address, volume in ((config.semantic, semantic), (config.boundary, boundary)):
        dtype = np.dtype(volume.dtype)
        if dtype != np.uint8 and dtype.kind != "f":
            raise BadInput(
                f"{address} of dtype {volume.dtype}",
                "a probability map is uint8 (0..255) or float (0..1)",
                "the scale of any other dtype is a guess",
            )
        require_complete_array(volume, address)
        _require_probabilities(address, volume)


def _require_probabilities(address: str, volume: Volume) -> None:
    """Refuse a float map whose samples are no probabilities; what they do not hold, its block finds."""
    for box in sample_boxes(volume) if np.dtype(volume.dtype).kind == "f" else ():
        try:
            values = volume.read(box)
        except BadInput:  # a torn chunk: its block will fail by name, and the others go on
            continue
        to_uint8(values, f"{address} {box}")
