"""What only a block can find fails that block, keeps the others, and the same command goes on when it is mended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Teramito
from tiny_run import ALL_LAYERS, arguments, ledger_lines, phantom_values, result_of, run_here, settings, write_volume

SHAPE = (40, 32, 160)
BLOCKS = {"block.shape": [40, 32, 32]}  # five; the fourth reads into the fifth
UNSAMPLED = 4  # a section that the samples for the grey levels do not hold


def _require_unsampled(where: str) -> None:
    from pipeline.image.grey import sample_boxes
    from pipeline.store.volume import open_volume

    assert not any(box.start[0] <= UNSAMPLED < box.stop[0] for box in sample_boxes(open_volume(where)))


def test_a_torn_chunk_fails_its_block_and_the_repaired_volume_is_completed(
    tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values(SHAPE), chunks=(1, 32, 32))
    _require_unsampled(where)
    undisturbed = run_here(settings(where, tmp_path / "undisturbed", tiny_model, BLOCKS))
    chunk = tmp_path / "raw" / "0" / "c" / str(UNSAMPLED) / "0" / "4"
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])

    given = arguments(where, tmp_path / "run", tiny_model, BLOCKS)
    for _ in range(2):
        said = teramito("run", *given)
        said.refuses("stage predict", "2 of 5 blocks failed; the others are kept", "block 4 [0:40,0:32,128:160]")
        said.refuses(str(tmp_path / "raw"), "the stored voxels must be readable", "Run the same command again")
        assert not (tmp_path / "run" / "report.json").exists()
        assert "not complete" in teramito("status", str(tmp_path / "run")).out
    lines = ledger_lines(tmp_path / "run", "predict")
    assert [line.split(":")[0] for line in lines if " ! " in line] == ["3 ! BadInput", "4 ! BadInput"] * 2
    done = [line for line in lines if " ! " not in line]
    assert [line.split()[0] for line in done] == ["0", "1", "2"]
    assert teramito("verify", str(tmp_path / "run")).code == 1

    chunk.write_bytes(content)
    assert teramito("run", *given).code == 0
    result_of(tmp_path / "run").require_same(undisturbed)
    after = [line for line in ledger_lines(tmp_path / "run", "predict") if " ! " not in line]
    assert after[:3] == done
    assert [line.split()[0] for line in after[3:]] == ["3", "4"]


def test_nan_outside_the_samples_fails_its_block_by_name(tiny_model: Path, tmp_path: Path, teramito: Teramito) -> None:
    values = phantom_values(SHAPE).astype(np.float32)
    values[UNSAMPLED, 20, 150] = np.nan
    where = write_volume(tmp_path / "raw", values)
    said = teramito("run", *arguments(where, tmp_path / "run", tiny_model, BLOCKS))
    said.refuses("stage predict", "2 of 5 blocks failed", "[0:40,0:32,128:160]")
    said.refuses("1 voxels in box", "NaN or infinite", "Replace them with 0")
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, made larger by ``mount -o remount,size=``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a full disk needs a mount of its own, and this user may not: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_error_and_the_same_command_goes_on_when_there_is_space(
    small_disk: Path, tiny_model: Path, tmp_path: Path, teramito: Teramito
) -> None:
    where = write_volume(tmp_path / "raw", phantom_values((40, 64, 64)))
    chosen = {"block.shape": [20, 32, 32], **ALL_LAYERS}
    undisturbed = run_here(settings(where, tmp_path / "undisturbed", tiny_model, chosen))
    given = ["run", *arguments(where, small_disk / "run", tiny_model, chosen), "--no-prefect"]
    command = [sys.executable, "-m", "flows.cli", *given, "--set", "cluster.kind=none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)

    # What the estimate asks for is free, but small files take whole pages here, so the run needs more.
    planned = teramito("plan", *arguments(where, small_disk / "run", tiny_model, chosen), "--json").json["disk_bytes"]
    room = planned + 20_000
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in (tmp_path / "undisturbed").rglob("*"))
    assert needed > 1.3 * room
    (small_disk / "filler").write_bytes(bytes(8 * 2**20 - room))
    stopped = run()
    assert stopped.returncode == 1, stopped
    assert stopped.stderr.count("error:") == 1, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "No space left" in stopped.stderr
    assert "same command" in stopped.stderr
    assert (small_disk / "run" / "run.json").exists()
    assert not (small_disk / "run" / "report.json").exists()

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    resumed = run()
    assert resumed.returncode == 0, resumed.stderr
    result_of(small_disk / "run").require_same(undisturbed)
