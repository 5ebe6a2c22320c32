"""Volumes as .npz files at the model's voxel size, to train where no reader of image files is installed.

From a shell: `python -m pipeline.training.prepare CONFIG DIRECTORY` writes one file a volume and a `config.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.volumes import load_stack
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.volumes import load_volume
from pipeline.training.sources import RawSource, Source, VolumeSource
from pipeline.training.task import read_task

Config = TypeVar("Config", bound=TrainConfig | RestorationConfig)


def prepare(config: Config, directory: Path) -> Config:
    """Read, cut and reduce every volume once, and store it compressed.

    Returns:
        The same configuration, naming the files written; training with it gives the same crops.

    Raises:
        BadInput: a volume cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    volumes = [_stored(source, config, directory / f"volume{n}.npz") for n, source in enumerate(config.volumes)]
    checks = [_stored(source, config, directory / f"validation{n}.npz") for n, source in enumerate(config.validation)]
    return cast(Config, config.model_copy(update={"volumes": tuple(volumes), "validation": tuple(checks)}))


def _stored(source: Any, config: TrainConfig | RestorationConfig, path: Path) -> RawSource:
    if isinstance(config, TrainConfig):
        return _labelled(source, config, path)
    np.savez_compressed(path, raw=load_stack(source).raw)
    return RawSource(raw=str(path), weight=source.weight)


def _labelled(source: Source, config: TrainConfig, path: Path) -> VolumeSource:
    volume = load_volume(source, config)
    small = volume.instances.max() < 2**16
    np.savez_compressed(
        path,
        raw=volume.raw,
        instances=volume.instances.astype(np.uint16 if small else np.uint32),
        voxel_size_nm=np.array(volume.voxel_size_nm),
        histogram=volume.grey_levels,
    )
    return VolumeSource(raw=str(path), weight=source.weight, from_step=source.from_step)


def main(arguments: list[str]) -> int:
    """`python -m pipeline.training.prepare CONFIG DIRECTORY`."""
    config, directory = read_task(Path(arguments[0])), Path(arguments[1])
    prepared = prepare(config, directory)
    (directory / "config.json").write_text(prepared.model_dump_json(indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
