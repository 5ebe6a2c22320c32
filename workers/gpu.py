"""Which GPUs there are, and one worker process pinned to each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from pipeline.errors import BadInput

_COUNT = "import torch; print(torch.cuda.device_count())"
_COUNT_TIMEOUT_S = 120


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The values of CUDA_VISIBLE_DEVICES that pin a process to each GPU this process may use.

    torch counts them in a process of its own: that is who will use them, and the driver gets no CUDA context.
    Tokens of an existing CUDA_VISIBLE_DEVICES (numbers, UUIDs, MIG names) are handed on as they are.
    """
    count = _torch_count()
    named = [token.strip() for token in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if token.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def pins(workers: int | None, gpus: list[str]) -> list[dict[str, str]]:
    """The environment of each worker process, one GPU each.

    Args:
        workers: how many; None for one on every GPU.
        gpus: from ``visible_gpus``.

    Raises:
        BadInput: no GPU, or fewer than ``workers``.
    """
    if not gpus:
        raise BadInput(
            "cluster.kind: cuda",
            "needs a GPU that torch can use",
            "torch finds none here (no driver, a CPU build of torch, or CUDA_VISIBLE_DEVICES hides them)",
            "Use cluster.kind: local to compute on the CPU.",
        )
    if workers is not None and workers > len(gpus):
        raise BadInput(
            f"cluster.workers: {workers}",
            f"cluster.kind cuda has one worker on each GPU, at most {len(gpus)} here",
            "two processes on one GPU only take each other's memory",
            f"Use cluster.workers: {len(gpus)} or leave it out.",
        )
    return [{"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} for gpu in gpus[:workers]]


def _torch_count() -> int:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], capture_output=True, text=True, timeout=_COUNT_TIMEOUT_S, check=False
    )
    last = done.stdout.strip().rpartition("\n")[2]
    return int(last) if done.returncode == 0 and last.isdigit() else 0
