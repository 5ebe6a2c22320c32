"""What the training of a restorer starts from, checked before any volume is read."""

from __future__ import annotations

from torch import nn

from pipeline.model.device import device_of
from pipeline.model.restorer import NETWORKS
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.sizes import require_multiples


def require_startable(config: RestorationConfig) -> None:
    """Refuse what can be refused in a second, without a volume: device, options, sizes.

    Raises:
        BadInput: one of them cannot be used.
    """
    device_of(config.device)
    multiple = multiple_of(NETWORKS[config.task](**config.options))
    require_multiples([("crop", config.crop), ("patch", config.patch)], (multiple, multiple))


def multiple_of(network: nn.Module) -> int:
    """What the height and width of a patch are multiples of."""
    return int(network.multiple)  # type: ignore[arg-type]
