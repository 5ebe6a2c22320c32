"""Driver and workers must run the same software: found out once, before any block, and said in one table."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

from distributed import Client

import pipeline
from pipeline.errors import TeramitoError

# Distributions whose major.minor must agree: they decide results, file formats or what a pickle means.
_COMPARED = ("numpy", "torch", "zarr", "distributed", "cloudpickle")
MISSING = "missing"
Versions = dict[str, str]


class VersionMismatch(TeramitoError):
    """Workers run other software than the driver; the message is a table of what differs."""


def versions() -> Versions:
    """What this process runs: teramito, python and the compared packages (``missing`` where not installed)."""
    found = {"teramito": pipeline.__version__, "python": platform.python_version()}
    return found | {name: _installed(name) for name in _COMPARED}


def require_same_versions(client: Client) -> None:
    """Compare this process with every worker of ``client``.

    Raises:
        VersionMismatch: one does not agree, or does not have teramito at all.
    """
    compare(versions(), client.run(versions, on_error="return"))


def compare(driver: Versions, workers: Mapping[str, Versions | Exception]) -> None:
    """Raise VersionMismatch with one row for each package that differs; worker addresses are the keys.

    teramito must be equal, all others equal in major.minor.
    """
    rows: dict[tuple[str, str, str], list[str]] = {}
    for address, found in workers.items():
        for row in _differences(driver, found):
            rows.setdefault(row, []).append(address)
    if rows:
        lines = [f"  {'package':<12} {'driver':<12} {'worker':<12} where"]
        lines += [f"  {name:<12} {ours:<12} {theirs:<12} {_where(at)}" for (name, ours, theirs), at in rows.items()]
        raise VersionMismatch(
            "the workers do not run the software of this driver (teramito must be equal, the others in major.minor):\n"
            + "\n".join(lines)
            + "\nInstall the same versions on both sides, for example from one constraints.txt or one image."
        )


def _differences(driver: Versions, found: Versions | Exception) -> list[tuple[str, str, str]]:
    if isinstance(found, Exception):
        return [("teramito", driver["teramito"], f"{MISSING} ({found})")]
    pairs = [(name, ours, found.get(name, MISSING)) for name, ours in driver.items()]
    return [(name, ours, theirs) for name, ours, theirs in pairs if not _agree(name, ours, theirs)]


def _agree(name: str, ours: str, theirs: str) -> bool:
    if name == "teramito" or MISSING in (ours, theirs):
        return ours == theirs
    return ours.split(".")[:2] == theirs.split(".")[:2]


def _where(addresses: list[str]) -> str:
    shown = ", ".join(addresses[:3])
    return shown if len(addresses) <= 3 else f"{shown} and {len(addresses) - 3} more"


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING
