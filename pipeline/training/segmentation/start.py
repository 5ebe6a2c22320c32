"""What a training starts from, checked before any volume is read: its network, its sizes, its first weights."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from pipeline.errors import BadInput, raise_all
from pipeline.geometry import Triple, vec3
from pipeline.model.device import device_of
from pipeline.model.loaded import checked_tensors
from pipeline.model.registry import build, load_weights, users_code
from pipeline.model.spec import load_spec, spec_path
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.sizes import require_multiples

_SOUND_DEPTH, _SOUND_SIDES = 10, (80, 160)
_TRIED: Triple = (4, 32, 32)
"""The first input of a network, at most: small, and enough for four halvings and a normalisation of what is left."""


def require_startable(config: TrainConfig) -> None:
    """Refuse what can be refused in a second, without a volume: device, processes, network, sizes, first weights.

    Raises:
        BadInput: one of them cannot be used.
    """
    shard_count(config)
    initial_weights(config, checked_network(config))


def checked_network(config: TrainConfig) -> nn.Module:
    """The network of a configuration, randomly initialised, once it has taken an input of zeros.

    Raises:
        BadInput: no such network, one that fails or gives something else than two channels of the size of its input,
            or a crop or patch that it cannot take, or that torch cannot compute in this precision.
    """
    raise_all([_unsound(stage.crop, config) for stage in config.stages if _is_unsound(stage.crop, config)])
    network = build(config.architecture, config.options)
    multiple = multiple_of(network, config.architecture)
    named = [("patch", config.patch), *(("stages.crop", stage.crop) for stage in config.stages)]
    require_multiples(named, multiple)
    _require_two_channels(network, config, multiple)
    return network


def multiple_of(network: nn.Module, name: str) -> Triple:
    """What the size of a patch is a multiple of, (z, y, x).

    Raises:
        BadInput: the network states something else than three whole numbers of 1 and above.
    """
    stated = network.multiple
    if isinstance(stated, (tuple, list)) and len(stated) == 3 and all(isinstance(m, int) and m > 0 for m in stated):
        return (stated[0], stated[1], stated[2])
    raise BadInput(f"{name}: multiple = {stated}", "it is three whole numbers (z, y, x) of 1 and above")


def initial_weights(config: TrainConfig, network: nn.Module) -> dict[str, Tensor] | None:
    """The weights of the model to start from, or None; `network` is that of the configuration.

    Raises:
        BadInput: no such model, or one of another architecture.
    """
    if config.initial is None:
        return None
    path = spec_path(os.path.expandvars(config.initial))
    spec = load_spec(path)
    weights = checked_tensors(path, spec)
    load_weights(network, weights, f"initial {config.initial}")
    return weights


def _is_unsound(crop: Triple, config: TrainConfig) -> bool:
    """Whether half precision on a CPU may write beyond its memory.

    torch 2.13 (oneDNN, AMX) does so in the gradients of bfloat16 Conv3d: of depths 1 to 16 and sides 16 to 160 tried,
    in those below 10 with sides from 96 on, kernels 1x3x3, 1x5x5 and 3x3x3 alike. Larger sides were not tried.
    """
    if config.precision == "float32" or device_of(config.device).type != "cpu":
        return False
    depth, side = crop[0], max(crop[1:])
    return side > _SOUND_SIDES[1] or (depth < _SOUND_DEPTH and side > _SOUND_SIDES[0])


def _unsound(crop: Triple, config: TrainConfig) -> BadInput:
    nearest = [max(crop[0], _SOUND_DEPTH), *(min(side, _SOUND_SIDES[1]) for side in crop[1:])]
    return BadInput(
        f"precision {config.precision} with crop {list(crop)} on a CPU",
        "such crops are at most {0} wide, or at least {2} deep and at most {1} wide".format(
            *_SOUND_SIDES, _SOUND_DEPTH
        ),
        "torch's half-precision convolutions write beyond their memory in others, and the program crashes",
        f"Take precision float32, or crop {nearest}.",
    )


def _require_two_channels(network: nn.Module, config: TrainConfig, multiple: Triple) -> None:
    crop = config.stages[0].crop
    size = vec3(crop).min(_TRIED).ceil_div(multiple) * multiple
    inputs, expected = torch.zeros(1, 1, *size), (1, 2, *size)
    network.eval()
    for name, call in (("logits", network.logits), ("forward", network)):
        with users_code(f"{config.architecture}: {name} of an input {tuple(inputs.shape)}"), torch.no_grad():
            given = call(inputs.clone())  # type: ignore[operator]
        found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        if found != expected:
            raise BadInput(
                f"{config.architecture}: {name} gives {found}",
                f"of an input (N, 1, D, H, W) it gives (N, 2, D, H, W), here {expected}",
                "channel 0 is the mask, channel 1 the boundary",
                "See pipeline/model/README.md.",
            )
