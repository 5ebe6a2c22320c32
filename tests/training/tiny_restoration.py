"""A restorer's training small enough for a test: one texture in all slices, under noise that an average removes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.training.optimiser import Optimiser
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.samples import Samples
from pipeline.training.restoration.volumes import Stack, load_stack
from pipeline.training.sources import RawSource


def write_texture(path: Path, depth: int = 6, seed: int = 0) -> str:
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((48, 64)), 3.0)
    noise = np.random.default_rng([seed, 1]).normal(0, 25, (depth, *texture.shape))
    raw = np.clip(128 + 40 * texture / texture.std() + noise, 1, 255).astype(np.uint8)
    np.savez(path, raw=raw)
    return str(path)


def config(volume: str, output: Path, **changes: Any) -> RestorationConfig:
    fields: dict[str, Any] = {
        "task": "interpolation",
        "name": "tiny",
        "output": str(output),
        "volumes": (RawSource(raw=volume),),
        "options": {"widths": [4, 6], "taps": 5} if changes.get("task") != "noise2noise" else {"width": 6},
        "steps": 6,
        "crop": (32, 32),
        "batch": 2,
        "optimiser": Optimiser(learning_rate=0.004, warmup_steps=1, decay_steps=3),
        "checkpoint_every": 2,
        "validate_every": 3,
        "patch": (32, 32),
        "overlap": (8, 8),
        "device": "cpu",
    }
    return RestorationConfig(**(fields | changes))


def samples(c: RestorationConfig) -> Samples:
    return Samples([load_stack(source) for source in c.volumes], c)


def ramp(depth: int = 9, side: int = 40) -> Stack:
    """Slices of one grey level each, ten more than that of the slice before."""
    levels = (np.arange(depth, dtype=np.uint8) + 1) * 10
    return Stack("ramp", np.broadcast_to(levels[:, None, None], (depth, side, side)).copy())


def logged(c: RestorationConfig) -> list[dict[str, Any]]:
    path = Path(c.output) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
