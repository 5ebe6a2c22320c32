"""A tiny model, a tiny volume and the ways to run them that the tests of whole runs share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from flows.drive import drive
from pipeline.engine.executor import Executor, SerialExecutor
from pipeline.engine.step import StepProgress
from pipeline.model.resunet_h import ResUNetH
from pipeline.phantom import Phantom
from pipeline.run.config import parse_config
from pipeline.run.job import Job
from pipeline.run.jobs import run_job
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import open_volume

SHAPE = (40, 96, 96)
WIDTHS = (2, 2, 2, 2, 2)
# With these the phantom gives some dozens of instances; seeds are a good part of the mask, so that growing shows.
THRESHOLDS = {"semantic": 0.5, "seed_semantic": 0.66, "seed_boundary": 0.55, "grow_nm": 30.0}
SMALL = {"instances.minimum_voxels": 8, "export.chunk": [16, 32, 32], "export.layers": ["segmentation"]}
ALL_LAYERS = {"export.layers": ["raw", "semantic", "boundary", "segmentation"]}


def write_tiny_model(folder: Path, seed: int = 5, **changes: Any) -> Path:
    """A network that takes blurred darkness for mitochondria, with a little of all its deeper levels; its .json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_darkness_weights(seed), folder / "tiny.safetensors")
    spec = {
        "name": "tiny",
        "widths": WIDTHS,
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "patch": (8, 32, 32),
        "overlap": (2, 4, 4),
        "weights": "tiny.safetensors",
        "sha256": hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest(),
        "thresholds": THRESHOLDS,
        **changes,
    }
    (folder / "tiny.json").write_text(json.dumps(spec))
    return folder / "tiny.json"


def _darkness_weights(seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    state = {
        name: torch.from_numpy((0.06 * random.standard_normal(tuple(value.shape))).astype(np.float32))
        for name, value in ResUNetH(WIDTHS, "none", "replicate").state_dict().items()
    }
    # The top level passes the blurred image on, above zero, where ELU changes nothing.
    state["encoder.stem.conv.weight"] += 1 / 25
    state["encoder.stem.conv.bias"] += 1.0
    for name in ("encoder.levels.0.first", "top_skip", "semantic.levels.0.first", "boundary.levels.0.first"):
        for channel in range(WIDTHS[0]):
            state[f"{name}.conv.weight"][channel, channel, 0, 1, 1] += 1.0
    for name, sign, bias in (("semantic", -1.0, 18.7), ("boundary", 1.0, -23.9)):
        state[f"{name}.head.conv.weight"] += sign * 16.0 / 50
        state[f"{name}.head.conv.bias"] += bias
    return {name: value.contiguous() for name, value in state.items()}


def write_volume(
    path: Path,
    values: NDArray[Any],
    size: tuple[float, float, float] | None = (10.0, 10.0, 10.0),
    chunks: tuple[int, int, int] = (16, 32, 32),
) -> str:
    """An OME-Zarr with these voxels; its address."""
    ome_zarr.create(str(path), values.shape, values.shape, chunks, str(values.dtype), size)
    volume = open_volume(str(path))
    volume.write(volume.box, values)
    return str(path)


def phantom_values(shape: tuple[int, int, int] = SHAPE, size: float = 10.0) -> NDArray[np.uint8]:
    """The grey values of the phantom that most tests run on."""
    made = Phantom(shape, 7, (size, size, size))
    return made.raw(made.box)


def settings(input_: str, output: Path, model: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a configuration; ``changes`` are ``{"block.shape": [8, 8, 8]}``."""
    values: dict[str, Any] = {"input": input_, "output": str(output), "model": str(model)}
    for key, value in {**SMALL, **(changes or {})}.items():
        place = values
        *parents, last = key.split(".")
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return values


def arguments(input_: str, output: Path, model: Path, changes: Mapping[str, Any] | None = None) -> list[str]:
    """The same configuration as arguments of ``teramito run`` and ``teramito plan``."""
    given = ["--input", input_, "--output", str(output), "--model", str(model)]
    for key, value in {**SMALL, **(changes or {})}.items():
        given += ["--set", f"{key}={json.dumps(value)}"]
    return given


def job_of(values: dict[str, Any]) -> Job:
    """The job of a configuration."""
    return run_job(parse_config(values))[0]


def run_here(values: dict[str, Any], executor: Executor | None = None, progress: StepProgress | None = None) -> Result:
    """Run (or resume) in this process, one block after another unless told otherwise."""
    job = job_of(values)
    with job.opened() as finished:
        if not finished:
            drive(job, executor or SerialExecutor(), progress)  # type: ignore[arg-type]
    return result_of(job.directory.root)


@dataclass(frozen=True)
class Result:
    """What must be identical between two runs: the voxels, and the bytes of the table."""

    segmentation: NDArray[np.uint64]
    semantic: NDArray[np.uint8]
    boundary: NDArray[np.uint8]
    exported: NDArray[np.uint64]
    table: Any

    @property
    def count(self) -> int:
        """Number of instances."""
        return int(self.segmentation.max())

    def require_same(self, other: Result) -> None:
        """Assert that both are equal, bit by bit."""
        np.testing.assert_array_equal(self.semantic, other.semantic)
        np.testing.assert_array_equal(self.boundary, other.boundary)
        np.testing.assert_array_equal(self.segmentation, other.segmentation)
        np.testing.assert_array_equal(self.exported, other.exported)
        assert self.table.equals(other.table)


def result_of(directory: Path) -> Result:
    """The result in a run directory."""
    arrays = {name: _whole(directory / "arrays" / name) for name in ("segmentation", "semantic", "boundary")}
    return Result(
        **arrays,
        exported=_whole(directory / "precomputed" / "segmentation"),
        table=parquet.read_table(directory / "instances.parquet"),
    )


def _whole(path: Path) -> NDArray[Any]:
    volume = open_volume(str(path))
    return volume.read(volume.box)


def ledger_lines(directory: Path, stage: str) -> list[str]:
    """The finished lines of a stage's ledger, without its header."""
    path = directory / "ledgers" / f"{stage}.ledger"
    return path.read_text().split("\n")[1:-1] if path.exists() else []


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two processes that both compute on all cores here are many times slower than with a thread each."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specification of the tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def phantom_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the phantom, 40x96x96 voxels of 10 nm."""
    return write_volume(tmp_path_factory.mktemp("phantom") / "raw", phantom_values())
