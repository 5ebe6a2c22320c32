"""Every decision comes from one numpy generator; the noise of whole volumes from a torch generator that it seeds."""

from __future__ import annotations

import numpy as np
import torch


def drawn(generator: np.random.Generator, chance: float) -> bool:
    """True with this chance; one number is drawn in any case, so that chances can change without others following."""
    return float(generator.random()) < chance


def seeded(seed: int | np.random.Generator, device: torch.device) -> torch.Generator:
    """A torch generator on `device`, so that noise is made where it is used."""
    number = seed if isinstance(seed, int) else int(seed.integers(2**63 - 1))
    return torch.Generator(device).manual_seed(number)
