"""Driver and workers with different software are told apart before any block."""

from __future__ import annotations

import pytest

from workers.dask_executor import DaskExecutor
from workers.handshake import VersionMismatch, compare, require_same_versions, versions

DRIVER = {"teramito": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0", "zarr": "3.1.6"}


def test_workers_of_the_same_software_pass(executor: DaskExecutor) -> None:
    require_same_versions(executor.client)


def test_versions_name_what_decides_results() -> None:
    assert {"teramito", "python", "numpy", "torch", "zarr"} <= set(versions())


def test_a_patch_release_of_another_package_passes() -> None:
    compare(DRIVER, {"tcp://a": DRIVER | {"python": "3.11.9", "torch": "2.13.1+cu130"}})


def test_every_difference_of_every_worker_stands_in_one_table() -> None:
    workers = {"tcp://a": DRIVER | {"teramito": "0.1.1", "zarr": "3.2.0"}, "tcp://b": DRIVER | {"zarr": "3.2.0"}}
    with pytest.raises(VersionMismatch) as caught:
        compare(DRIVER, workers)
    rows = [line.split() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert rows == [
        ["package", "driver", "worker", "where"],
        ["teramito", "0.1.0", "0.1.1", "tcp://a"],
        ["zarr", "3.1.6", "3.2.0", "tcp://a,", "tcp://b"],
    ]


def test_a_worker_without_torch_is_refused_where_the_driver_has_it() -> None:
    with pytest.raises(VersionMismatch, match=r"torch +2\.13\.0 +missing +tcp://a"):
        compare(DRIVER, {"tcp://a": DRIVER | {"torch": "missing"}})


def test_a_worker_without_teramito_is_named() -> None:
    error = ModuleNotFoundError("No module named 'workers'")
    with pytest.raises(VersionMismatch, match=r"teramito +0\.1\.0 +missing \(No module named 'workers'\) tcp://a"):
        compare(DRIVER, {"tcp://a": error})


def test_a_large_cluster_is_not_listed_worker_by_worker() -> None:
    workers = {f"tcp://{n}": DRIVER | {"numpy": "1.26.4"} for n in range(50)}
    with pytest.raises(VersionMismatch, match=r"tcp://0, tcp://1, tcp://2 and 47 more"):
        compare(DRIVER, workers)
