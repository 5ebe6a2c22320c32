"""What does test-time augmentation bring, and what does it cost? The same volume with 0, 4, 8 and 16 variants.

``python -m benchmarks.tta [INPUT TRUTH]``; without them the middle quarter of the plane of lucchi z 132-164 below
``$TERAMITO_DATA``, on which no shipped model was trained. ``--model`` again and again for an ensemble. One process, one
block after another; seconds are those of the predict stage (read, compute, write), its models loaded before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from flows.drive import run_bare
from pipeline.errors import BadInput
from pipeline.evaluation.blockwise import evaluate
from pipeline.predict.tta import CHOICES, Tta
from pipeline.run.config import RunConfig, parse_config
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume

LUCCHI = "lucchi/train_raw.tif", "lucchi/train_instances.tif"
CROP = "[132:165,192:576,256:768]"
LUCCHI_NM = (5.0, 5.0, 5.0)
SCORES = ("iou", "ap75", "instances_predicted", "instances_truth")


def main(
    input_: str,
    truth: str,
    models: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    choices: Sequence[Tta] = CHOICES,
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON.

    Args:
        input_, truth: addresses of the volume and of its instances, of one shape.
        models: names or paths; the default model where there are none.
        settings: further settings of the runs.
        choices: of ``predict.tta``, the first one is what the others' seconds are divided by.
        results: where the JSON goes.

    Returns:
        One row a choice.
    """
    rows: list[dict[str, Any]] = []
    for tta in choices:
        row = measured(input_, truth, models, settings or {}, tta)
        first = rows[0]["predict_s"] if rows else row["predict_s"]
        rows.append({**row, "seconds_ratio": round(row["predict_s"] / first, 2)})
    print(report.table(rows))
    report.write("tta", rows, results)
    return rows


def measured(input_: str, truth: str, models: Sequence[str], settings: dict[str, Any], tta: Tta) -> dict[str, Any]:
    """One run, scored."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(input_, f"{folder}/run", models, settings, tta)
        job, plan = run_job(config)
        made = run_bare(job, None)
        assert made is not None  # the directory is new
        (predict,) = (stage for stage in made["stages"] if stage["stage"] == "predict")
        scores = evaluate(open_volume(f"{folder}/run/arrays/segmentation"), open_volume(truth))
    return {
        "volume": _named(input_),
        "voxels": "x".join(map(str, plan.source.shape)),
        "model": " + ".join(member.spec.name for member in plan.members),
        "tta": tta,
        **{name: scores[name] for name in SCORES},
        "predict_s": sum(predict["seconds"]),
    }


def lucchi() -> tuple[str, str]:
    """The default volume and its truth.

    Raises:
        BadInput: ``$TERAMITO_DATA`` is not set.
    """
    folder = os.environ.get("TERAMITO_DATA")
    if not folder:
        raise BadInput("TERAMITO_DATA", "it names the folder of the real EM volumes", nearest="Or give INPUT TRUTH.")
    raw, instances = (f"{Path(folder) / name}{CROP}" for name in LUCCHI)
    return raw, instances


def _config(input_: str, output: str, models: Sequence[str], settings: dict[str, Any], tta: Tta) -> RunConfig:
    given = {"cluster": {"kind": "none", "threads_per_worker": 1}, "export": {"layers": ["segmentation"]}, **settings}
    predict = {**given.get("predict", {}), "tta": tta}
    chosen = {"model": list(models)} if models else {}
    return parse_config({**given, **chosen, "predict": predict, "input": input_, "output": output})


def _named(address: str) -> str:
    """The last two parts of an address, with its crop; not where the data lie on this machine."""
    return "/".join(Path(address).parts[-2:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="INPUT TRUTH")
    parser.add_argument("--model", action="append", default=[], help="again and again for an ensemble")
    parser.add_argument("--voxel-size-nm", type=float, nargs=3, help="z y x, where INPUT does not state it")
    given = parser.parse_args()
    if len(given.paths) not in (0, 2):
        parser.error("give INPUT and TRUTH, or neither")
    size = given.voxel_size_nm or (None if given.paths else LUCCHI_NM)
    input_, truth = given.paths or lucchi()
    main(input_, truth, given.model, {} if size is None else {"voxel_size_nm": tuple(size)})
