"""How a training is shared: the number of processes, and the parts of a step's batch."""

from __future__ import annotations

import torch

from pipeline.errors import BadInput
from pipeline.model.device import device_of
from pipeline.training.segmentation.config import TrainConfig


def process_count(config: TrainConfig) -> int:
    """How many processes train: what the configuration says, or one a GPU."""
    if config.processes is not None:
        return config.processes
    return torch.cuda.device_count() if device_of(config.device).type == "cuda" else 1


def shard_count(config: TrainConfig) -> int:
    """Parts of a step's batch.

    Raises:
        BadInput: parts or batch cannot be shared evenly by the processes.
    """
    processes = process_count(config)
    shards = config.shards or processes
    for name, value, by in [
        ("shards", shards, processes),
        *(("batch", stage.batch, shards) for stage in config.stages),
    ]:
        if value % by:
            raise BadInput(
                f"{name} {value} with {processes} processes and {shards} shards",
                "processes divide shards, and shards divide the batch",
                "every process computes equal parts of a step",
                f"The nearest legal {name} is {max(by, round(value / by) * by)}.",
            )
    return shards
