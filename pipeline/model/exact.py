"""Element-wise functions whose bits do not depend on the number of threads, nor on the other patches of a batch.

torch splits a large tensor over its threads and computes the end of each part, less than a vector, with other
(scalar) code, which rounds the exponential in ELU and the sigmoid differently. Convolutions, padding, sums and
interpolation gave the same bits for 1, 2, 3, 4 and 7 threads and any batch (torch 2.13, AVX-512); these two did not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

# Elements for which torch starts another thread (at::internal::GRAIN_SIZE); a multiple of any vector's length.
_GRAIN = 32768


def elu_(x: Tensor) -> Tensor:
    """ELU in place, of any (N, ...) dense in memory; with a gradient, or off the CPU, torch's own."""
    if x.requires_grad or x.device.type != "cpu":
        return functional.elu(x, inplace=True)
    for part in _parts(x):
        functional.elu(part, inplace=True)
    return x


def sigmoid_(x: Tensor) -> Tensor:
    """The same for the sigmoid, which is not in place where there is a gradient."""
    if x.requires_grad or x.device.type != "cpu":
        return torch.sigmoid(x)
    for part in _parts(x):
        part.sigmoid_()
    return x


def _parts(x: Tensor) -> Iterator[Tensor]:
    """Flat views of each patch in memory order; torch splits each, if at all, between whole vectors."""
    threads = torch.get_num_threads()
    for patch in x:
        flat = torch.as_strided(patch, (patch.numel(),), (1,))
        start = 0
        while start < flat.numel():
            grains = (flat.numel() - start) // _GRAIN
            length = _GRAIN * (grains - grains % threads if grains > threads else grains) or flat.numel() - start
            yield flat[start : start + length]
            start += length
