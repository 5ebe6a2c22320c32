"""plan, run, instances, verify: what makes a run and checks it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    ConfigFile,
    Json,
    NoPrefect,
    SettingsOption,
    VoxelSizeOption,
    config_values,
    show,
    voxel_size,
)
from flows.commands.runs import execute, existing_run, recorded_job
from flows.reports.estimate import estimate, estimate_lines
from pipeline.engine.directory import require_space
from pipeline.run.config import InstancesConfig, RunConfig, parse_config
from pipeline.run.jobs import instances_job, run_job
from pipeline.run.verify import Incomplete, require_verified
from pipeline.settings import parse_settings

InputOption = Annotated[str | None, typer.Option("--input", help="Path or URL of the volume.")]
Output = Annotated[str | None, typer.Option("--output", help="Directory of the run; the same again resumes.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="A shipped model, or the path of a model's .json; several are averaged."),
]


def plan(
    config: ConfigFile = None,
    input: InputOption = None,
    output: Output = None,
    model: ModelOption = None,
    voxel_size_nm: VoxelSizeOption = None,
    set_: SettingsOption = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do, and refuse what cannot work. Writes nothing.

    Example: teramito plan --input volume.zarr --output run1
    """
    settings = _run_config(config, input, output or "unnamed", model, voxel_size_nm, set_)
    job, planned = run_job(settings)
    facts = estimate(planned, job)
    require_space(job.directory.root, facts["disk_bytes"])
    show(facts, as_json, estimate_lines(facts))


def run(
    config: ConfigFile = None,
    input: InputOption = None,
    output: Output = None,
    model: ModelOption = None,
    voxel_size_nm: VoxelSizeOption = None,
    set_: SettingsOption = None,
    no_prefect: NoPrefect = False,
    as_json: Json = False,
) -> None:
    """Turn a volume into mitochondria instances. On an existing directory: resume; on a finished one: nothing.

    Example: teramito run --input volume.tif --voxel-size-nm 5,5,5 --output run1
    """
    settings = _run_config(config, input, output, model, voxel_size_nm, set_)
    job, planned = run_job(settings)
    if not job.directory.manifest.exists():  # a run that resumes has most of its space already
        require_space(job.directory.root, estimate(planned, job, measure=False)["disk_bytes"])
    execute(job, settings, "segment_volume", no_prefect, as_json)


def instances_command(
    semantic: Annotated[str, typer.Argument(help="Semantic probability map, uint8 or float 0..1, any format.")],
    boundary: Annotated[str, typer.Argument(help="Boundary probability map of the same shape.")],
    output: Annotated[str, typer.Argument(help="Directory of the result; the same again resumes.")],
    config: ConfigFile = None,
    voxel_size_nm: VoxelSizeOption = None,
    set_: SettingsOption = None,
    no_prefect: NoPrefect = False,
    as_json: Json = False,
) -> None:
    """Instances from two stored probability maps, from this network or any other.

    Example: teramito instances run1/arrays/semantic run1/arrays/boundary out --set instances.preset=published
    """
    given = {"semantic": semantic, "boundary": boundary, "output": output, "voxel_size_nm": voxel_size(voxel_size_nm)}
    settings = parse_settings(InstancesConfig, config_values(config, given, set_))
    execute(instances_job(settings), settings, "instances_from_maps", no_prefect, as_json)


def verify_run(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")], as_json: Json = False
) -> None:
    """Count every block of every stage and read samples of the result back; exit 1 if anything is missing.

    Example: teramito verify run1
    """
    run_directory = existing_run(directory)
    job = recorded_job(run_directory)
    try:
        with run_directory.locked():
            require_verified(job.steps, run_directory)
    except Incomplete as found:
        if not as_json:
            raise
        show({"complete": False, "problems": found.problems}, as_json, [])
        raise typer.Exit(1) from None
    facts = {"complete": True, "problems": []}
    show(facts, as_json, ["complete: every block of every stage is there, and the exported layers read back right"])


def _run_config(
    file: Path | None,
    input_url: str | None,
    output: str | None,
    model: list[str] | None,
    size: str | None,
    settings: list[str] | None,
) -> RunConfig:
    given = {"input": input_url, "output": output, "model": model or None, "voxel_size_nm": voxel_size(size)}
    return parse_config(config_values(file, given, settings))
