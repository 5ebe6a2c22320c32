"""Which post-processing is better: the published one or the default? Both on the same stored maps against truth.

``python -m benchmarks.postprocessing RUN TRUTH [RUN TRUTH ...]``: RUN is a finished run, TRUTH its instances. Only
labelled data that the network and the thresholds were not chosen on tells anything.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from benchmarks import report
from flows.drive import run_bare
from pipeline.evaluation.blockwise import evaluate
from pipeline.run.config import InstancesConfig
from pipeline.run.jobs import instances_job
from pipeline.settings import parse_settings
from pipeline.store.volume import open_volume

PRESETS = ("published", "default")


def main(
    pairs: Sequence[tuple[str, str]], model: str = "mito-v1", results: Path = report.RESULTS
) -> list[dict[str, Any]]:
    """One row for each run and preset: IoU, Dice, AP-50, AP-75, instances."""
    rows = [row for run, truth in pairs for row in compared(run, truth, model)]
    print(report.table(rows))
    report.write("postprocessing", rows, results)
    return rows


def compared(run: str, truth: str, model: str) -> list[dict[str, Any]]:
    """Both presets on the maps of one run."""
    return [{"volume": Path(run).name, "preset": preset, **scores(run, truth, preset, model)} for preset in PRESETS]


def scores(run: str, truth: str, preset: str, model: str) -> dict[str, float]:
    """Instances of one preset, scored."""
    from pipeline.model.spec import load_spec

    chosen = load_spec(model).thresholds
    size = open_volume(f"{run}/arrays/semantic").voxel_size_nm or (1.0, 1.0, 1.0)
    settings: dict[str, Any] = {"preset": preset}
    if preset == "default":
        settings |= {
            "seed_above": chosen.seed_semantic,
            "boundary_below": chosen.seed_boundary,
            "mask_above": chosen.semantic,
            "grow_nm": chosen.grow_nm,
            "minimum_voxels": int(chosen.minimum_um3 * 1e9 / prod(size)),
        }
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "semantic": f"{run}/arrays/semantic",
            "boundary": f"{run}/arrays/boundary",
            "output": f"{folder}/out",
            "instances": settings,
            "cluster": {"kind": "none", "threads_per_worker": 1},
        }
        run_bare(instances_job(parse_settings(InstancesConfig, values)), None)
        return evaluate(open_volume(f"{folder}/out/arrays/segmentation"), open_volume(truth))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", help="RUN TRUTH, again and again")
    parser.add_argument("--model", default="mito-v1")
    given = parser.parse_args()
    main(list(zip(given.paths[::2], given.paths[1::2], strict=True)), given.model)
