"""The benchmark of the driver's memory runs at a tiny size, and says on what machine."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import driver_memory


def test_the_driver_memory_benchmark_writes_its_table(tmp_path: Path) -> None:
    rows = driver_memory.main(400, tmp_path)
    assert [row["blocks"] for row in rows] == [400, 4]
    written = json.loads((tmp_path / "driver_memory.json").read_text())
    assert written["rows"] == rows
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["packages"]["distributed"]
