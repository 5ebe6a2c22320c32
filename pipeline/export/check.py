"""What verification asks of an exported layer."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path

from pipeline.export.levels import ExportLevel
from pipeline.export.probe import probe

PROBES = 8


def export_problems(level: ExportLevel) -> list[str]:
    """Chunks that are not there, at any mip; at the finest, what a probe through cloud-volume finds."""
    folder = Path(level.target.url)
    try:
        key = json.loads((folder / "info").read_bytes())["scales"][level.mip]["key"]
        # Chunks of zeros are stored too. One is named x0-x1_y0-y1_z0-z1, perhaps with .gz.
        stored = {entry.name.removesuffix(".gz") for entry in os.scandir(folder / key) if entry.name.count("_") == 2}
    except (OSError, ValueError, LookupError) as error:
        return [f"{folder}: its info or chunks are missing ({error})"]
    chunks = prod(level.target.shape.ceil_div(level.target.chunks))
    if len(stored) < chunks:
        return [f"{chunks - len(stored)} of {chunks} chunks are missing in {folder / key}"]
    return probe(level.source, level.target, PROBES) if level.mip == 0 else []
