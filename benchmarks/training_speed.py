"""How many voxels a second does the trainer take, and how long does the device wait for data?

``python -m benchmarks.training_speed`` trains on a phantom, each case in a process of its own. The yardstick, in the
same process on the same cores, is the bare loop: that network, forward, backward and Adam on one random batch in
memory, nothing drawn, augmented, averaged or logged. On a CPU the trainer gives each shard a thread, and the bare loop
has as many threads for its arithmetic. Steps of the trainer, of the bare loop, and of the trainer again, so that other
work on the machine hits both; medians. Batches made before the clock starts are used up first, so the waiting is that
of a long training. ``crop_ms`` is one augmented crop by one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import report
from pipeline.model.device import device_of
from pipeline.model.options import PUBLISHED_WIDTHS
from pipeline.model.registry import build
from pipeline.training.prepare import prepare
from pipeline.training.segmentation.config import PhantomSource, TrainConfig, TrainStage, VolumeSource
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.volumes import load_volume

Triple = tuple[int, int, int]
Row = dict[str, Any]
NARROW = (8, 16, 32, 48, 64)
PHANTOM = PhantomSource(phantom_seed=1001, shape=(48, 384, 384))


@dataclass(frozen=True)
class Case:
    """One way to train; what is not said is as `TrainConfig` has it."""

    widths: tuple[int, ...] = NARROW
    norm: Literal["none", "batch"] = "batch"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    augmentation: Literal["default", "published", "none"] = "default"
    shards: int = 2
    crop: Triple = (12, 112, 112)
    batch: int = 4
    compile: bool = False
    steps: int = 4

    def config(self, source: PhantomSource | VolumeSource, folder: str) -> TrainConfig:
        """The training whose steps are timed."""
        fields = {
            "name": "speed",
            "output": folder,
            "volumes": (source,),
            "voxel_size_nm": (10.0, 10.0, 10.0),
            "options": {"widths": list(self.widths), "norm": self.norm},
            "stages": (TrainStage(steps=10**6, crop=self.crop, batch=self.batch),),
            "augmentation": self.augmentation,
            "processes": 1,
            "shards": self.shards,
            "precision": self.precision,
            "compile": self.compile,
            "ahead": 1 if device().type == "cpu" else 4,
        }
        return TrainConfig.model_validate(fields)


def device() -> torch.device:
    """What is measured: the GPU where there is one."""
    return device_of("auto")


def cases(kind: str) -> tuple[Case, ...]:
    """The first, and what changes when one thing at a time is another; on a GPU the published crop and widths."""
    if kind == "cpu":
        base = Case()
        wide = replace(base, widths=PUBLISHED_WIDTHS, norm="none", steps=2)
        changes: list[dict[str, Any]] = [{"precision": "float32"}, {"augmentation": "published"}]
        changes += [{"augmentation": "none"}, {"shards": 1}]
        return (base, *(replace(base, **change) for change in changes), wide, replace(wide, precision="float32"))
    base = Case(PUBLISHED_WIDTHS, "none", crop=(32, 256, 256), batch=4, shards=1, steps=20)
    changes = [{"batch": 2}, {"batch": 8}, {"compile": True}, {"compile": True, "batch": 8}, {"precision": "float32"}]
    changes += [{"augmentation": "published"}, {"augmentation": "none"}, {"widths": NARROW, "norm": "batch"}]
    return (base, *(replace(base, **change) for change in changes))


def main(
    chosen: Sequence[Case] = (),
    source: PhantomSource = PHANTOM,
    is_apart: bool = True,
    results: Path = report.RESULTS,
) -> list[Row]:
    """Measure, print the table, write the JSON.

    Args:
        chosen: one row each; those of this machine's device where there are none.
        source: the tissue, made once.
        is_apart: each case in a process of its own, so that its peak memory is its own.
        results: where the JSON goes.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stored = _stored(source, Path(folder))
        for case in chosen or cases(device().type):
            rows.append(apart(case, stored) if is_apart else measured(case, stored))
    print(report.table(rows))
    report.write("training_speed", rows, results)
    return rows


def measured(case: Case, source: VolumeSource) -> Row:
    """One case, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        config = case.config(source, folder)
        samples = Samples([load_volume(source, config)], config, case.shards)
        run = TrainingRun(config, samples, Path(folder), Group(device()))
        try:
            entries = _steps(run, case.steps)
            peak = _peak_gib()
            bare = bare_seconds(config, case.steps)
            entries += _steps(run, case.steps)
        finally:
            run.close()
        crop = median(_crop_seconds(samples, step) for step in range(1, 4))
    seconds, voxels = median(entry["seconds"] for entry in entries), case.batch * prod(case.crop)
    return {
        **_told(case),
        "voxels_a_s": round(voxels / seconds),
        "bare_voxels_a_s": round(voxels / bare),
        "ratio_to_bare": round(bare / seconds, 2),
        "waited": round(sum(entry["waited"] for entry in entries) / sum(entry["seconds"] for entry in entries), 3),
        "step_s": round(seconds, 3),
        "crop_ms": round(1000 * crop, 1),
        "peak_gib": round(peak, 2),
    }


def apart(case: Case, source: VolumeSource) -> Row:
    """One case, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, case, source).result()


def bare_seconds(config: TrainConfig, steps: int) -> float:
    """Median seconds of a step on one random batch in memory; the first step is not counted."""
    where, stage = device(), config.stages[0]
    torch.manual_seed(config.seed)
    network = build(config.architecture, config.options)
    network.to(where, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    logits: Callable[[Tensor], Tensor] = network.logits  # type: ignore[assignment]
    logits = torch.compile(logits) if config.compile else logits
    inputs = torch.rand(stage.batch, 1, *stage.crop, device=where).contiguous(memory_format=torch.channels_last_3d)
    target = (torch.rand(stage.batch, 2, *stage.crop, device=where) < 0.3).float()
    optimiser = torch.optim.Adam(network.parameters(), fused=where.type == "cuda")
    seconds = []
    with _threads(config.shards or 1):
        for _ in range(steps + 1):
            started = time.monotonic()
            with torch.autocast(where.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                output = logits(inputs)
            loss = functional.binary_cross_entropy_with_logits(output.float(), target)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            _finish()
            seconds.append(time.monotonic() - started)
    return median(seconds[1:])


def _steps(run: TrainingRun, steps: int) -> list[Row]:
    """Entries of the log, after a first step and as many as batches were made ahead."""
    for _ in range(1 + run.config.ahead):
        run.advance()
    with torch.backends.cudnn.flags(benchmark=True):
        return [run.advance() for _ in range(steps)]


def _crop_seconds(samples: Samples, step: int) -> float:
    stage = samples.config.stages[0]
    with _threads(1):
        started = time.monotonic()
        samples.batch(step, device=device())
        _finish()
        return (time.monotonic() - started) / (stage.batch // samples.shards)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish() -> None:
    """Wait until the GPU has done all it was given."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def _peak_gib() -> float:
    """Most memory so far: of the GPU, or in RAM of this process alone (Linux)."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def _told(case: Case) -> Row:
    fields = asdict(case)
    joined = {"widths": "-".join(map(str, case.widths)), "crop": "x".join(map(str, case.crop))}
    return {"device": device().type, **fields, **joined}


def _stored(source: PhantomSource, folder: Path) -> VolumeSource:
    (made,) = prepare(Case().config(source, str(folder)), folder).volumes
    assert isinstance(made, VolumeSource)
    return made


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
