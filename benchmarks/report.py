"""What every benchmark writes beside its numbers: the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "zarr", "torch", "distributed")

Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory (GiB), and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset_peak() -> None:
    """Let ``peak_bytes`` count from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory this process has held in RAM since it started, or since ``reset_peak`` (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def write(name: str, rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """Write ``folder/name.json`` with the rows, the machine and the date; the path written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    measured = {"name": name, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "rows": list(rows)}
    path.write_text(json.dumps(measured, indent=2) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns, headed by the keys of the first."""
    if not rows:
        return ""
    lines = [[str(key) for key in rows[0]], *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
