"""What do ten minutes on a CPU make of the shipped model? Fine-tuned on a few fly slices, scored on others.

``python -m benchmarks.fine_tune`` takes ``pipeline/training/configs/fine-tune-fly.yaml``: drosophila_vnc stack1 z 0-11
to train on, z 12-14 to tune thresholds on, and reports z 15-19, by the pipeline's own prediction and instances at the
voxel size trained at. Before, the model is scored with the thresholds it is shipped with and, since those were tuned on
other tissue, with thresholds tuned on the same z 12-14.

``--minutes`` sets the number of steps from a few that are timed first, so what else the machine does counts;
``--steps`` sets it as it is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report, tissue
from pipeline.model.device import device_of
from pipeline.model.spec import load_spec, spec_path
from pipeline.run.config import RunConfig
from pipeline.training.record.history import read_history
from pipeline.training.segmentation.config import Source, TrainConfig, read_config
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.segmentation.thresholds import tuned
from pipeline.training.segmentation.train import train
from pipeline.training.segmentation.validation import scores
from pipeline.training.segmentation.volumes import load_volume

CONFIG = Path(__file__).parents[1] / "pipeline/training/configs/fine-tune-fly.yaml"
REPORTED = tissue.fly((15, 20))
Row = dict[str, Any]
_TIMED = 5
_TRAINING_SHARE = 0.9
"""Of the minutes; the rest is for reading the volumes, the validation and its thresholds."""


def main(config: TrainConfig, reported: Source = REPORTED, results: Path = report.RESULTS) -> list[Row]:
    """Score, fine-tune, score, print the table, write the JSON.

    Args:
        config: with the model to start from, and validation volumes to tune thresholds on.
        reported: the volume that is scored.
        results: where the JSON goes.

    Returns:
        Three rows: before, with the model's own thresholds and with tuned ones; after.
    """
    assert config.initial is not None
    name = load_spec(spec_path(config.initial)).name
    kept_out = [load_volume(source, config) for source in config.validation]
    volume = load_volume(reported, config)
    (before, *maps), own = tissue.predicted_by(config.initial, [volume, *kept_out], config)
    chosen = tuned(maps, kept_out)
    (after,), found = tissue.predicted_by(str(train(config)), [volume], config)
    said = f"tuned on {', '.join(one.name for one in kept_out)}"
    rows: list[Row] = [
        {"weights": name, "thresholds": "its own", **scores(before, volume, own)},
        {"weights": name, "thresholds": said, **scores(before, volume, chosen)},
        {"weights": "fine-tuned", "thresholds": said, **scores(after, volume, found)},
    ]
    rows = [{"reported": volume.name, **row} for row in rows]
    _tell(config, name, rows, results)
    return rows


def _tell(config: TrainConfig, name: str, rows: list[Row], results: Path) -> None:
    megavoxels = round(tissue.voxels(config) / 1e6, 1)
    trained = {"steps": config.steps, "mvx_trained": megavoxels, **_seconds(Path(config.output))}
    print(f"fine-tuned on {', '.join(map(tissue.named, config.volumes))}: {trained}")
    print(report.table(rows))
    kept = config.model_copy(update={"initial": name}).model_dump(mode="json", exclude={"output"})
    report.write("fine_tune", [*rows, {"training": trained, "config": kept}], results)


def steps_in(minutes: float, config: TrainConfig) -> int:
    """How many steps the minutes are enough for, from the median of a few."""
    samples = Samples([load_volume(source, config) for source in config.volumes], config, shard_count(config))
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(config, samples, Path(folder), Group(device_of(config.device)))
        try:
            seconds = [run.advance()["seconds"] for _ in range(_TIMED + 1)][1:]
        finally:
            run.close()
    return max(1, int(_TRAINING_SHARE * 60.0 * minutes / median(seconds)))


def shortened(config: TrainConfig, steps: int) -> TrainConfig:
    """The configuration with another number of steps, its schedule in proportion; it has one stage."""
    (stage,) = config.stages
    share = steps / stage.steps
    schedule = {name: int(getattr(config.optimiser, name) * share) for name in ("warmup_steps", "decay_steps")}
    changes = {
        "stages": (stage.model_copy(update={"steps": steps}),),
        "optimiser": config.optimiser.model_copy(update=schedule),
        "freeze_norm_steps": int(config.freeze_norm_steps * share),
        "validate_every": max(1, int(config.validate_every * share)),
    }
    return config.model_copy(update=changes)


def _seconds(output: Path) -> Row:
    """Of all steps, and of those the share spent waiting for data."""
    steps = read_history(output).steps
    took = sum(one["seconds"] for one in steps)
    return {"training_s": round(took), "waited": round(sum(one["waited"] for one in steps) / took, 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--model", default=RunConfig.model_fields["model"].default, help="to start from")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--output", type=Path, help="keeps the training; a new directory")
    given = parser.parse_args()
    tissue.require_data()
    with tempfile.TemporaryDirectory() as scratch:
        told = {"initial": given.model, "output": str(given.output or scratch)}
        asked = read_config(given.config).model_copy(update=told)
        main(shortened(asked, given.steps or steps_in(given.minutes, asked)))
