"""What a training configuration trains: a network for mitochondria, or, where it has a `task`, a restorer of slices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.training.reading import as_json, checked
from pipeline.training.record.log import TrainingProgress
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.segmentation.config import TrainConfig

TaskConfig = TrainConfig | RestorationConfig


def task_of(values: Any) -> type[TrainConfig] | type[RestorationConfig]:
    """The model that such keys and values belong to."""
    return RestorationConfig if isinstance(values, Mapping) and "task" in values else TrainConfig


def read_task(path: Path) -> TaskConfig:
    """The configuration in a JSON or YAML file.

    Raises:
        BadInput: no such file, or keys and values that are no training configuration; all of them at once.
    """
    text = as_json(path)
    try:
        kind = task_of(json.loads(text))
    except ValueError:
        kind = TrainConfig  # says what is wrong with the JSON
    return checked(text, kind, path)


def require_startable(config: TaskConfig) -> None:
    """Refuse what can be refused in a second, without a volume.

    Raises:
        BadInput: a device, network or size that cannot be used.
    """
    if isinstance(config, RestorationConfig):
        from pipeline.training.restoration import start as restoration  # these load torch

        return restoration.require_startable(config)
    from pipeline.training.segmentation import start as segmentation

    return segmentation.require_startable(config)


def train_task(config: TaskConfig, progress: TrainingProgress | None = None) -> Path:
    """Train, or go on training; the path of the specification NAME.json. Raises what the two trainings raise."""
    if isinstance(config, RestorationConfig):
        from pipeline.training.restoration import train as restoration

        return restoration.train(config, progress)
    from pipeline.training.segmentation import train as segmentation

    return segmentation.train(config, progress)
