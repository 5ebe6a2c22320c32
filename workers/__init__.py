"""Where blocks run: Dask workers on this machine, its GPUs, or a cluster that is already there."""

from __future__ import annotations
