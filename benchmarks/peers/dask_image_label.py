"""dask-image's ``label`` of a zarr array, 6-connected, to a zarr array; run by the Python of the peers' environment.

    python dask_image_label.py SOURCE TARGET --workers 2

Blocks are the chunks of SOURCE; threads, Dask's default for arrays. Prints one line of JSON: seconds, and the number of
components.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any


def measure(source: str, target: str, workers: int) -> dict[str, Any]:
    """Label ``source``."""
    import dask.array
    from dask_image.ndmeasure import label

    started = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=workers):
        labels, count = label(dask.array.from_zarr(source))  # type: ignore[no-untyped-call]
        _, found = dask.base.compute(labels.to_zarr(target, compute=False, overwrite=True), count)  # type: ignore[no-untyped-call]
    return {"seconds": {"label": time.perf_counter() - started}, "components": int(found)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(json.dumps(measure(given.source, given.target, given.workers)))
