"""The label path killed again and again at random moments, with the codecs and threads of our own processes."""

from __future__ import annotations

import signal
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_path import LabelRun, hard_volume, in_core, label_run, require_exact

from pipeline.engine.executor import ThreadsExecutor
from pipeline.instances.labelling import MERGE_AT_ONCE
from pipeline.instances.ops.whole import whole_instances


def work(run: LabelRun) -> None:
    """What a process of a run does, from its first line to its end."""
    run.go_on(ThreadsExecutor(2))


def done_blocks(run: LabelRun) -> int:
    """How many lines all ledgers hold."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in (run.root / "ledgers").glob("*.ledger"))


def killed_later(process: ForkServerProcess, run: LabelRun, blocks: int, seconds: float) -> bool:
    """Kill the process some blocks and seconds on; False when it came to its end before that."""
    before, until = done_blocks(run), time.monotonic() + 60
    while process.is_alive() and done_blocks(run) < before + blocks:
        assert time.monotonic() < until
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


EVERYTHING: dict[str, Any] = {
    "grow": "mask",
    "grow_nm": 20.0,
    "mask_above": 0.3,
    "fill_holes_nm": 20.0,
    "join_gap": 1,
    "drop_border": True,
    "minimum_voxels": 6,
}


@pytest.mark.parametrize(
    ("connectivity", "at_once", "options"), [(6, 0, {}), (26, MERGE_AT_ONCE, EVERYTHING)], ids=["levels", "everything"]
)
def test_kill_9_at_random_moments_again_and_again_changes_nothing_and_repeats_nothing(
    connectivity: int, at_once: int, options: dict[str, Any], processes: ForkServerContext, tmp_path: Path
) -> None:
    random = np.random.default_rng(connectivity)
    mask = hard_volume("random 0.31" if connectivity == 6 else "random 0.03", (20, 20, 24), connectivity)
    run = label_run(tmp_path, mask, (5, 5, 6), connectivity, at_once, **options)
    kills = 0
    while True:
        before = run.finished()
        process = processes.Process(target=work, args=(run,))
        process.start()
        interrupted = killed_later(process, run, int(random.integers(10, 90)), random.uniform(0, 0.01))
        for stage, numbers in before.items():
            assert run.finished()[stage][: len(numbers)] == numbers
        if not interrupted:
            assert process.exitcode == 0
            break
        kills += 1
    assert kills >= 4
    semantic, boundary = (volume.read(volume.box) for volume in (run.maps.semantic, run.maps.boundary))
    expected = whole_instances(semantic, boundary, run.plan)
    assert expected.max() > 20
    require_exact(run, expected)
    if not options:
        np.testing.assert_array_equal(expected, in_core(mask, connectivity))
    assert [path.name for path in run.root.rglob("*") if path.suffix in (".levels", ".sums", ".making")] == []
