"""What the tests of flows and pages share: one Prefect server, a tiny network and volume, and commands as processes."""

from __future__ import annotations

import atexit
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tifffile

from flows.cli import Commands

BUSY = 503  # Prefect's answer while its SQLite file is locked; its own clients ask again
SIZE = ("--voxel-size-nm", "10,10,10")
# Small blocks in one thread: something to interrupt.
SMALL = ("--set", "cluster.kind=none", "--set", "cluster.threads_per_worker=1", "--set", "block.shape=[8,32,32]")


@cache
def shared_folder() -> Path:
    """A folder for the whole session."""
    folder = tempfile.TemporaryDirectory(prefix="teramito-flows-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def shared_server() -> str:
    """URL of one Prefect server for the whole session; its start takes longer than most tests."""
    from flows.tracking.server import prefect_server

    os.environ.pop("PREFECT_API_URL", None)
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(prefect_server(shared_folder() / "server"))


@cache
def tiny_model() -> str:
    """Path of a random Res-UNet-H of the narrowest widths."""
    import torch
    from safetensors.torch import save_file

    from pipeline.model.resunet_h import ResUNetH

    torch.manual_seed(0)
    folder, widths = shared_folder() / "model", (2, 2, 2, 2, 2)
    folder.mkdir()
    network = ResUNetH(widths, "batch", "replicate")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(folder / "tiny.safetensors"))
    spec = {
        "name": "tiny",
        "widths": widths,
        "norm": "batch",
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "patch": (8, 32, 32),
        "overlap": (4, 16, 16),
        "weights": "tiny.safetensors",
        "sha256": hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest(),
        "thresholds": {"seed_semantic": 0.5, "seed_boundary": 0.52, "semantic": 0.45},
    }
    (folder / "tiny.json").write_text(json.dumps(spec))
    return str(folder / "tiny.json")


@cache
def tiff(shape: tuple[int, int, int]) -> str:
    """Path of an uncompressed TIFF stack of noise."""
    path = shared_folder() / f"noise-{'x'.join(map(str, shape))}.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    return str(path)


class Command:
    """A ``teramito`` process; used like a ``subprocess.Popen``."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        folder = Path(tempfile.mkdtemp(dir=shared_folder()))
        pipes = folder / "stdout", folder / "stderr"
        for pipe in pipes:
            os.mkfifo(pipe)
        # Forked from a process that has imported the command: to import it takes longer than most tests. One thread
        # of torch is decided there; two wait for each other where the cores are busy.
        forking = multiprocessing.get_context("forkserver")
        modules = {place.split(".")[0] for place in Commands.places.values()}
        forking.set_forkserver_preload([f"flows.commands.{module}" for module in sorted(modules)])
        self._process = forking.Process(target=_command, args=(arguments, environment, pipes))
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):
            self._process.start()
        atexit.register(self.kill)
        self.stdout, self.stderr = (pipe.open() for pipe in pipes)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; -n where signal n ended it."""
        return self._process.exitcode

    def kill(self) -> None:
        """Kill -9, if it still runs."""
        self._process.kill()

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code."""
        self._process.join(seconds)
        assert self.returncode is not None, f"not ended within {seconds} s"
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what is left of standard output and error."""
        self.wait(timeout)
        return self.stdout.read(), self.stderr.read()


def _command(arguments: tuple[str, ...], environment: dict[str, str], pipes: tuple[Path, Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(os.open(pipe, os.O_WRONLY), number)
    sys.argv = ["teramito", *arguments]
    import_module("flows.cli").main()


def teramito(*arguments: str, api: str | None) -> Command:
    """Start a command with the Prefect server of that URL, or with its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if api is not None:
        environment["PREFECT_API_URL"] = api
    return Command(arguments, environment)


def run_command(output: Path, shape: tuple[int, int, int], *more: str) -> tuple[str, ...]:
    """Arguments of a run on noise."""
    return ("run", "--input", tiff(shape), "--output", str(output), "--model", tiny_model(), *SIZE, *SMALL, *more)


def flow_run_id(process: Command) -> str:
    """The id of the flow run that a command announces on its standard error."""
    for line in process.stderr:
        if line.startswith("Prefect: "):
            return line.strip().rpartition("/")[2]
    raise AssertionError("the command ended without the address of its page")


def ended(process: Command, seconds: float = 120) -> tuple[int, str]:
    """Exit code and what is left of standard error."""
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """An answer of the Prefect API: POST with a body, GET without."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", data, {"Content-Type": "application/json"})
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != BUSY:
                raise
            time.sleep(1.0)
    raise AssertionError(f"{api}/{path} stayed busy")


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def blocks_done(output: Path, stage: str = "predict") -> int:
    """Blocks in a stage's ledger."""
    ledger = output / "ledgers" / f"{stage}.ledger"
    return max(0, ledger.read_text().count("\n") - 1) if ledger.exists() else 0


def exported_run(root: Path) -> Path:
    """A run directory with two exported layers, noise and two instances, 20 x 40 x 50 voxels of 30 x 8 x 8 nm."""
    from pipeline.export.levels import Layer, copy_block, create_layers, export_levels
    from pipeline.store.volume import open_volume

    labels = np.zeros((20, 40, 50), np.uint8)
    labels[:, 5:15, 5:45], labels[:, 25:35, 5:45] = 1, 2
    noise = np.random.default_rng(0).integers(0, 255, labels.shape, np.uint8)
    for name, array in (("raw", noise), ("segmentation", labels)):
        tifffile.imwrite(root / f"{name}.tif", array)
    raw, segmentation = (open_volume(str(root / f"{name}.tif"), (30.0, 8.0, 8.0)) for name in ("raw", "segmentation"))
    layers = [Layer("raw", "image", raw), Layer("segmentation", "segmentation", segmentation)]
    levels = export_levels(str(root / "precomputed"), layers)
    create_layers(levels)
    for level in levels:
        for number in range(len(level.grid)):
            copy_block(level, level.grid[number])
    (root / "run.json").write_text("{}")
    return root
