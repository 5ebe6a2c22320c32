"""A training small enough for a test: dark discs on bright tissue, which a network of any size learns at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.training.optimiser import Optimiser
from pipeline.training.segmentation.config import TrainConfig, TrainStage, VolumeSource
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.volumes import load_volume

OPTIONS = {"widths": [2, 3, 4, 4, 4], "norm": "batch"}


def write_discs(path: Path, depth: int = 4, seed: int = 0) -> str:
    z, y, x = np.indices((depth, 64, 64))
    instances = np.zeros(z.shape, np.uint16)
    for label, (cy, cx) in enumerate([(16, 16), (18, 45), (46, 20), (48, 48)], start=1):
        instances[(y - cy) ** 2 + (x - cx) ** 2 < 90] = label
    noise = np.random.default_rng(seed).integers(-20, 20, z.shape)
    raw = np.where(instances > 0, 80, 180) + noise
    np.savez(path, raw=raw.astype(np.uint8), instances=instances, voxel_size_nm=np.array([10.0, 10.0, 10.0]))
    return str(path)


def optimiser(**changes: Any) -> Optimiser:
    return Optimiser(**({"learning_rate": 0.01, "warmup_steps": 1, "decay_steps": 3} | changes))


def stage(steps: int = 6, **changes: Any) -> TrainStage:
    return TrainStage(**({"steps": steps, "crop": (2, 32, 32), "batch": 2} | changes))


def config(volume: str, output: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "volumes": (VolumeSource(raw=volume),),
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "options": OPTIONS,
        "stages": (stage(),),
        "optimiser": optimiser(),
        "shards": 2,
        "freeze_norm_steps": 1,
        "checkpoint_every": 3,
        "validate_every": 3,
        "patch": (4, 32, 32),
        "overlap": (1, 8, 8),
    }
    return TrainConfig(**(fields | changes))


def begun(c: TrainConfig, group: Group | None = None) -> TrainingRun:
    Path(c.output).mkdir(parents=True, exist_ok=True)
    samples = Samples([load_volume(source, c) for source in c.volumes], c, c.shards or 1)
    return TrainingRun(c, samples, Path(c.output), group)


def logged(c: TrainConfig) -> list[dict[str, Any]]:
    path = Path(c.output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def weights(path: Path) -> bytes:
    return path.with_suffix(".safetensors").read_bytes()
