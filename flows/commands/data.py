"""demo, phantom, convert: what works on volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.evaluate import score_lines
from flows.commands.options import NoPrefect, VoxelSizeOption, shape, voxel_size
from flows.commands.runs import execute
from pipeline.engine.finished import open_complete
from pipeline.evaluation.blockwise import evaluate
from pipeline.geometry import vec3
from pipeline.phantom import Phantom, write_phantom
from pipeline.phantom.damage import Damage
from pipeline.run.config import parse_config
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume

DEMO_SHAPE = (96, 320, 320)
DEMO_SEED = 7


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder; gets OUT/raw and OUT/instances (OME-Zarr).")],
    shape_: Annotated[str, typer.Option("--shape", help="Voxels, Z,Y,X.")] = "96,320,320",
    seed: Annotated[int, typer.Option(help="Another seed, other tissue.")] = 0,
    voxel_size_nm: VoxelSizeOption = "10,10,10",
    damage: Annotated[
        float | None,
        typer.Option(help="Damage OUT/raw with this strength (1: plain to see); OUT/clean and OUT/damage tell where."),
    ] = None,
) -> None:
    """Make a synthetic EM volume with its ground truth.

    Example: teramito phantom phantom1 --shape 128,512,512 --seed 3
    """
    size = voxel_size(voxel_size_nm)
    assert size is not None
    made = Phantom(shape("--shape", shape_), seed, size)
    planted = None if damage is None else Damage(made.shape, made.voxel_size_nm, seed, damage)
    write_phantom(str(out.absolute()), made, progress=_counter("phantom"), damage=planted)
    typer.echo(f"{out / 'raw'} and {out / 'instances'}, {shape_} voxels of {voxel_size_nm} nm")
    if planted is not None:
        typer.echo(f"{out / 'clean'} is the image before the damage, {out / 'damage'} its kind at every voxel")


def convert_command(
    source: Annotated[str, typer.Argument(help="Any readable volume; [z0:z1,y0:y1,x0:x1] crops.")],
    target: Annotated[
        str, typer.Argument(help="Path or URL: OME-Zarr, or by name precomputed://..., .tif, file.h5:dataset.")
    ],
    voxel_size_nm: VoxelSizeOption = None,
) -> None:
    """Copy a volume into another format, block by block.

    Example: teramito convert 'stack.tif[0:100,:,:]' volume.zarr --voxel-size-nm 30,8,8
    """
    from pipeline.store.convert import convert as convert_volume

    made = convert_volume(open_complete(source, voxel_size(voxel_size_nm)), target, progress=_counter("convert"))
    typer.echo(f"{made}: {made.shape} voxels, {made.dtype}")


def demo(
    output: Annotated[Path, typer.Option(help="Directory of the demo.")] = Path("demo"),
    no_prefect: NoPrefect = False,
) -> None:
    """The whole way on a synthetic volume: phantom, run, scores against its truth.

    Example: teramito demo --output demo
    """
    root = output.absolute()
    made = Phantom(vec3(DEMO_SHAPE), DEMO_SEED)
    if not (root / "phantom" / "done").exists():
        write_phantom(str(root / "phantom"), made, progress=_counter("phantom"))
        (root / "phantom" / "done").touch()
    settings = parse_config({"input": str(root / "phantom" / "raw"), "output": str(root / "run")})
    job, _ = run_job(settings)
    execute(job, settings, "segment_volume", no_prefect, as_json=False)
    scores = evaluate(
        open_volume(str(root / "run" / "precomputed" / "segmentation")),
        open_volume(str(root / "phantom" / "instances")),
    )
    typer.echo("\n".join(["against the phantom's truth:", *score_lines(scores)]))


def _counter(what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            typer.echo(f"{what}: {done} of {total} blocks", err=True)

    return report
