"""How much of the network's own speed is left when the engine drives it? Target: at least 0.90.

The engine reads raw from zarr, cuts patches, runs the network, blends, quantises and writes two maps to zarr, in one
process whose two threads take turns at the network. The bare loop gives the same network the same patches, already cut
and normalised, and drops the results. Both repeat in turn; voxels are those of the patches, equally many for both.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks import report
from pipeline.arrays import Float32
from pipeline.engine.arrays import create_if_missing, stored_volume
from pipeline.engine.blocks import chunk_shape
from pipeline.engine.executor import ThreadsExecutor, run_stage
from pipeline.engine.ledger import Ledger
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import sample_grey
from pipeline.model.load import load_model
from pipeline.model.resunet_h import ResUNetH
from pipeline.model.spec import ModelSpec, load_spec
from pipeline.phantom import Phantom
from pipeline.predict.op import PredictOp
from pipeline.predict.stage import PredictStage
from pipeline.store.volume import Volume

SHAPE, BLOCK, PATCH, OVERLAP = map(vec3, ((32, 256, 256), (32, 128, 256), (16, 128, 128), (4, 32, 32)))
VOXEL_SIZE_NM = (10.0, 10.0, 10.0)
WIDTHS = (8, 16, 32, 48, 64)  # of mito-v1
ENGINE_THREADS = 2
TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Sizes:
    """Voxels, z y x."""

    shape: Vec3 = SHAPE
    block: Vec3 = BLOCK
    patch: Vec3 = PATCH
    overlap: Vec3 = OVERLAP


def random_model(folder: Path, sizes: Sizes) -> Path:
    """A network of the shipped one's widths with random weights: as fast, and there before any training."""
    torch.manual_seed(0)
    save_file(ResUNetH(WIDTHS, "batch").state_dict(), folder / "random.safetensors")
    spec = ModelSpec(
        name="random",
        options={"widths": WIDTHS, "norm": "batch"},
        voxel_size_nm=VOXEL_SIZE_NM,
        patch=sizes.patch,
        overlap=sizes.overlap,
        weights="random.safetensors",
        sha256=hashlib.sha256((folder / "random.safetensors").read_bytes()).hexdigest(),
    )
    path = folder / "random.json"
    path.write_text(spec.model_dump_json())
    return path


def prepared(folder: Path, sizes: Sizes, model: str) -> PredictStage:
    """A stage over a stored phantom."""
    grid = BlockGrid(sizes.shape, sizes.block)
    like = Volume("", "", "zarr", sizes.shape, "uint8", sizes.block, VOXEL_SIZE_NM)
    raw, semantic, boundary = (
        stored_volume(str(folder / name), grid, "uint8", like, chunk_shape(sizes.block))
        for name in ("raw", "semantic", "boundary")
    )
    create_if_missing(raw, grid)
    for block in grid:
        raw.write(block.core, Phantom(sizes.shape, 0, VOXEL_SIZE_NM).raw(block.core))
    spec, (grey, histogram) = load_spec(model), sample_grey(raw)
    return PredictStage(
        source=raw,
        upstream="phantom",
        semantic=semantic,
        boundary=boundary,
        grid=grid,
        op=PredictOp(sizes.shape, vec3((1, 1, 1)), sizes.patch, sizes.overlap, "bump"),
        model=model,
        spec=spec,
        grey=grey,
        statistics=spec.normalisation.statistics(histogram),
        device="cpu",
    )


def patches_of(stage: PredictStage) -> list[Float32]:
    """Every patch that the engine computes, block by block, (1, 1, z, y, x), normalised."""
    raw = stage.source.read(stage.source.box)

    def cut() -> Iterator[Float32]:
        for block in stage.grid:
            for patch in stage.op.patches(block.core):
                yield stage.spec.normalisation.apply(raw[patch.slices()], stage.statistics)[None, None]

    return list(cut())


def run_engine(folder: Path, stage: PredictStage) -> dict[str, float]:
    """One whole stage into empty arrays: its seconds, and the patches it counted."""
    for volume in (stage.semantic, stage.boundary):
        shutil.rmtree(volume.url, ignore_errors=True)
        create_if_missing(volume, stage.grid)
    (folder / "predict.ledger").unlink(missing_ok=True)
    started = time.perf_counter()
    with Ledger(folder / "predict.ledger", stage.name, stage.fingerprint, len(stage.grid)) as ledger:
        run_stage(stage, ledger, ThreadsExecutor(ENGINE_THREADS))
    seconds = time.perf_counter() - started
    read_s, op_s, write_s = ledger.seconds.tolist()
    return {
        "seconds": seconds,
        "patches": float(ledger.counts.sum()),
        "read_s": read_s,
        "op_s": op_s,
        "write_s": write_s,
    }


def run_bare(stage: PredictStage, patches: list[Float32]) -> float:
    """Seconds of the network alone."""
    network = load_model(stage.model, stage.device)
    started = time.perf_counter()
    for patch in patches:
        network.predict(patch)
    return time.perf_counter() - started


def measure(folder: Path, sizes: Sizes, model: str, repeats: int) -> list[dict[str, Any]]:
    """Both rows; a repetition is one of each, so that the machine's other load falls on both."""
    stage = prepared(folder, sizes, model)
    patches = patches_of(stage)
    run_bare(stage, patches[:1])
    engine, bare = [], []
    for _ in range(repeats):
        bare.append(run_bare(stage, patches))
        engine.append(run_engine(folder, stage))
    if any(each["patches"] != len(patches) for each in engine):
        raise AssertionError("the engine did not compute the patches that the bare loop did")
    ratio = statistics.median(b / e["seconds"] for b, e in zip(bare, engine, strict=True))
    medians = {name: statistics.median(each[name] for each in engine) for name in engine[0]}
    alone = {"seconds": statistics.median(bare), "read_s": 0.0, "op_s": statistics.median(bare), "write_s": 0.0}
    shared = {
        **{name: "x".join(map(str, size)) for name, size in asdict(sizes).items()},
        "torch_threads": torch.get_num_threads(),
        "repeats": repeats,
    }
    count = len(patches)
    return [
        {**row("bare loop", alone, count, sizes, 1.0), **shared},
        {**row("engine", medians, count, sizes, ratio), **shared},
    ]


def row(name: str, seconds: dict[str, float], patches: int, sizes: Sizes, ratio: float) -> dict[str, Any]:
    """One row of the table. The engine's ``op_s`` counts a thread's wait for the other at the network too."""
    voxels = patches * Box.of_shape(sizes.patch).size
    return {
        "what": name,
        "patches": patches,
        "seconds": round(seconds["seconds"], 3),
        "voxels_a_s": round(voxels / seconds["seconds"]),
        "ratio_to_bare": round(ratio, 3),
        **{part: round(seconds[part], 3) for part in ("read_s", "op_s", "write_s")},
    }


def main(
    sizes: Sizes | None = None,
    model: str | None = None,
    threads: int | None = None,
    repeats: int = 3,
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON.

    Args:
        sizes: of volume, block and patches.
        model: shipped name or path of a specification; random weights by default.
        threads: of torch, for both; torch's own choice by default.
        repeats: at least one.
        results: folder of the JSON.
    """
    sizes, before = sizes or Sizes(), torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Path(folder), sizes, model or str(random_model(Path(folder), sizes)), repeats)
    finally:
        torch.set_num_threads(before)
    print(report.table(rows))
    print(f"target: the engine at least {TARGET:g} of the bare loop")
    report.write("predict_engine", rows, results)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("shape", SHAPE), ("block", BLOCK), ("patch", PATCH), ("overlap", OVERLAP)):
        parser.add_argument(f"--{name}", type=int, nargs=3, default=default, help="voxels z y x")
    parser.add_argument("--model", help="shipped name or path of a specification; random weights by default")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    chosen = Sizes(vec3(given.shape), vec3(given.block), vec3(given.patch), vec3(given.overlap))
    main(chosen, given.model, given.threads, given.repeats)
