"""igneous' four-pass connected components of a stored volume; run by the Python of the peers' environment.

    python igneous_ccl.py SOURCE TARGET --task 256 --workers 2 --encoding raw

SOURCE and TARGET are folders of precomputed volumes; nonzero voxels of SOURCE are labelled, 6-connected. What
``igneous image ccl auto`` does, pass by pass, except that worker processes are started and have imported igneous before
the clock starts, and that ids are stored as uint64. Prints one line of JSON: seconds of each pass, and the number of
components.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

Run = Callable[[Iterable[Any]], None]


def run_task(task: Callable[[], None]) -> None:
    """One task, in a worker."""
    task()


def warm_up(seconds: float) -> None:
    """Import what a task needs; waits, so that every worker gets one."""
    import igneous.tasks  # noqa: F401

    time.sleep(seconds)


def passes(source: str, target: str, shape: tuple[int, int, int], encoding: str, run: Run) -> dict[str, float]:
    """The four passes; seconds of each."""
    import igneous.task_creation as tasks
    from igneous.tasks.image.ccl import create_relabeling

    seconds = {}
    started = time.perf_counter()
    run(tasks.create_ccl_face_tasks(source, 0, shape))
    seconds["faces"] = time.perf_counter() - started
    started = time.perf_counter()
    run(tasks.create_ccl_equivalence_tasks(source, 0, shape))
    seconds["links"] = time.perf_counter() - started
    started = time.perf_counter()
    create_relabeling(source, 0, shape)
    seconds["merge"] = time.perf_counter() - started
    create_target(source, target, encoding)
    started = time.perf_counter()
    run(tasks.create_ccl_relabel_tasks(source, target, mip=0, shape=shape, encoding=encoding))
    seconds["relabel"] = time.perf_counter() - started
    return seconds


def create_target(source: str, target: str, encoding: str) -> None:
    """A uint64 segmentation; left to itself igneous takes the smallest dtype, uint8 for fewer than 256 components."""
    from cloudvolume import CloudVolume

    info = CloudVolume(source).info | {"data_type": "uint64", "type": "segmentation"}
    info["scales"] = [info["scales"][0] | {"encoding": encoding}]
    CloudVolume(target, info=info).commit_info()


def components(source: str) -> int:
    """What the third pass counted."""
    from cloudfiles import CloudFiles
    from cloudvolume import CloudVolume

    files = CloudFiles(source)
    return int(files.get_json(files.join(CloudVolume(source).key, "ccl", "max_label.json"))[0])


def measure(source: str, target: str, side: int, encoding: str, workers: int) -> dict[str, Any]:
    """Label ``source`` in tasks of ``side`` voxels a side."""
    shape = (side, side, side)

    def one_after_another(tasks: Iterable[Any]) -> None:
        for task in tasks:
            run_task(task)

    if workers == 1:
        warm_up(0.0)
        seconds = passes(source, target, shape, encoding, one_after_another)
        return {"seconds": seconds, "components": components(source)}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def by_workers(tasks: Iterable[Any]) -> None:
            for _ in pool.map(run_task, tasks):
                pass

        list(pool.map(warm_up, [1.0] * workers))
        seconds = passes(source, target, shape, encoding, by_workers)
    return {"seconds": seconds, "components": components(source)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--task", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--encoding", default="compresso")
    given = parser.parse_args()
    with redirect_stderr(StringIO()):  # progress bars
        found = measure(f"file://{given.source}", f"file://{given.target}", given.task, given.encoding, given.workers)
    print(json.dumps(found))
