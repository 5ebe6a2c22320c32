"""Which block, which network, one size of crop or two? Tables 1 and 2 of Li et al. in small, at an equal budget.

``python -m benchmarks.ablation --output DIRECTORY``. Every variant draws as many voxels, from the same seeds, with the
same widths, normalisation layers, augmentation and schedule. All train on lucchi z 0-111, sbem_mouse z 0-25 and
drosophila_vnc stack1 z 0-14; thresholds are tuned on lucchi z 112-131; reported are the slices that the rows name, at
the voxel size trained at, by the pipeline's own prediction and instances. Up-sampling repeats the edge in R and in H of
the paper, so that they differ in their decoders alone; H of the code is as published but for widths and norm.

The same command goes on where it was killed. What comes out of a budget thousands of times below the published one
says how fast each variant learns, not what it reaches in the end; several ``--seeds`` tell chance from difference.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks import report, tissue
from pipeline.model.cost import gflop_a_megavoxel, parameters
from pipeline.model.device import device_of
from pipeline.model.registry import build
from pipeline.training.optimiser import Optimiser
from pipeline.training.prepare import prepare
from pipeline.training.record.log import TrainingLog
from pipeline.training.segmentation.config import Source, TrainConfig, TrainStage
from pipeline.training.segmentation.export import export
from pipeline.training.segmentation.loop import TrainingRun
from pipeline.training.segmentation.loss import Loss
from pipeline.training.segmentation.processes import Group
from pipeline.training.segmentation.samples import Samples
from pipeline.training.segmentation.shards import shard_count
from pipeline.training.segmentation.thresholds import tuned
from pipeline.training.segmentation.validation import scores
from pipeline.training.segmentation.volumes import LabelledVolume, load_volume
from pipeline.training.session import stoppable

Triple = tuple[int, int, int]
Row = dict[str, Any]
SCORES = ("iou", "ap50", "ap75")
_ROUNDS = 15


class Tissue(NamedTuple):
    """Slices to train on, to tune thresholds on, and to report."""

    trained: tuple[Source, ...]
    tuning: Source
    reported: tuple[Source, ...]


class Variant(NamedTuple):
    """One training; `tables` are those of the paper that it belongs to."""

    tables: str
    network: str
    architecture: str
    unit: str = "acb"
    is_multi_scale: bool = False


@dataclass(frozen=True)
class Budget:
    """What all variants share.

    Attributes:
        steps, crop, batch: of the training with one size of crop, which decides the voxels drawn.
        wide_crop: of the second stage of the training with two; 1.8 times the voxels and a third of the steps, as
            published.
        widths: of the networks.
        seeds: of the trainings of each variant; scores are means over them.
    """

    steps: int = 800
    crop: Triple = (6, 64, 64)
    batch: int = 4
    wide_crop: Triple = (7, 80, 80)
    widths: tuple[int, ...] = (4, 8, 16, 24, 32)
    seeds: tuple[int, ...] = (0,)
    shards: int = 2
    precision: str = "float32"


VARIANTS = (
    Variant("1, 2", "R", "resunet-r"),
    Variant("1", "R", "resunet-r", "residual"),
    Variant("1", "R", "resunet-r", "se"),
    Variant("1", "R", "resunet-r", "eca"),
    Variant("2", "H (paper)", "resunet-h"),
    Variant("2", "H (code)", "resunet-h-code"),
    Variant("2", "H (paper)", "resunet-h", is_multi_scale=True),
)


def real_tissue() -> Tissue:
    """The split of the docstring; of sbem_mouse the middle quarter of the plane is reported, of the others all."""
    tissue.require_data()
    return Tissue(
        trained=(tissue.lucchi((0, 112)), tissue.mouse((0, 26)), tissue.fly((0, 15))),
        tuning=tissue.lucchi((112, 132)),
        reported=(tissue.lucchi((132, 165)), tissue.fly((15, 20)), tissue.mouse((26, 30), "[0:30,256:768,256:768]")),
    )


def main(
    split: Tissue,
    output: Path,
    budget: Budget = Budget(),
    variants: Sequence[Variant] = VARIANTS,
    results: Path = report.RESULTS,
) -> list[Row]:
    """Train what is not trained yet, score, print the tables, write the JSON.

    Args:
        split: the tissue.
        output: one directory a training; finished ones are taken from there.
        budget: of each training.
        variants: the rows; seconds a step are divided by those of the first.
        results: where the JSON goes.

    Returns:
        One row a variant and reported volume.
    """
    configs = [[_config(variant, budget, split, output, seed) for seed in budget.seeds] for variant in variants]
    ready = prepare(configs[0][0], output / "volumes").volumes
    configs = [[one.model_copy(update={"volumes": ready}) for one in same] for same in configs]
    tuning, *reported = [load_volume(source, configs[0][0]) for source in (split.tuning, *split.reported)]
    volumes = [load_volume(source, configs[0][0]) for source in ready]
    found = [[_scored(config, volumes, tuning, reported) for config in same] for same in configs]
    ratios = step_ratios([same[0] for same in configs], volumes)
    rows = []
    for number, volume in enumerate(reported):
        for variant, same, scored, ratio in zip(variants, configs, found, ratios, strict=True):
            first = _described(variant, same[0])
            rows.append({"reported": volume.name, **first, **_mean([s[number] for s in scored]), "step_ratio": ratio})
    common = {"trained": ", ".join(map(tissue.named, split.trained)), "tuned": tuning.name, "budget": asdict(budget)}
    print(f"trained on {common['trained']}; thresholds tuned on {common['tuned']}; {budget}")
    print(report.table(rows))
    report.write("ablation", [{**row, **common} for row in rows], results)
    return rows


def stages(budget: Budget, is_multi_scale: bool) -> tuple[TrainStage, ...]:
    """One stage, or two that draw as many voxels (to half a step), the second with a third of the steps."""
    if not is_multi_scale:
        return (TrainStage(steps=budget.steps, crop=budget.crop, batch=budget.batch),)
    ratio = prod(budget.wide_crop) / prod(budget.crop)
    second = max(1, round(budget.steps / (2.0 + ratio)))
    first = max(1, budget.steps - round(second * ratio))
    return (
        TrainStage(steps=first, crop=budget.crop, batch=budget.batch),
        TrainStage(steps=second, crop=budget.wide_crop, batch=budget.batch),
    )


def step_ratios(configs: Sequence[TrainConfig], volumes: Sequence[LabelledVolume]) -> list[float]:
    """Seconds of a first-stage step without waiting for data, divided by those of the first configuration.

    The configurations take turns, and the fastest of their rounds counts: other work on the machine only adds seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = [_begun(_first_steps(config), volumes, Path(folder)) for config in configs]
        rounds = [[_seconds(run) for run in runs] for _ in range(_ROUNDS + 1)][1:]
        fastest = [min(took) for took in zip(*rounds, strict=True)]
        for run in runs:
            run.close()
    return [round(seconds / fastest[0], 2) for seconds in fastest]


def _config(variant: Variant, budget: Budget, split: Tissue, output: Path, seed: int) -> TrainConfig:
    planned = stages(budget, variant.is_multi_scale)
    steps = sum(stage.steps for stage in planned)
    name = "-".join([variant.architecture, variant.unit, *["multi-scale"] * variant.is_multi_scale, f"seed{seed}"])
    options: dict[str, Any] = {"widths": list(budget.widths), "norm": "batch", "unit": variant.unit}
    if variant.architecture == "resunet-r":
        options["upsampling"] = "interpolate"
    return TrainConfig.model_validate(
        {
            "name": name,
            "output": str(output / name),
            "volumes": split.trained,
            "voxel_size_nm": (10.0, 10.0, 10.0),
            "architecture": variant.architecture,
            "options": options,
            "stages": planned,
            "optimiser": Optimiser(warmup_steps=min(30, steps // 8), decay_steps=steps // 2),
            "loss": Loss(fraction_clip=(0.15, 0.85)),
            "ema_decay": 0.98,
            "freeze_norm_steps": steps // 10,
            "select": "last",
            "shards": budget.shards,
            "precision": budget.precision,
            "seed": seed,
        }
    )


def trained(config: TrainConfig, volumes: Sequence[LabelledVolume]) -> Path:
    """Train, or go on, without validating on the way; the last average of the weights as a model's specification."""
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    with stoppable() as stop:
        run = _begun(config, volumes, output)
        try:
            run.finish(stop, lambda: None, TrainingLog(output, step=run.step))
            return export(run.average, config, output)
        finally:
            run.close()


def _scored(
    config: TrainConfig, volumes: Sequence[LabelledVolume], tuning: LabelledVolume, reported: Sequence[LabelledVolume]
) -> list[Row]:
    """Scores on each reported volume; trained and scored before, they are read."""
    kept = Path(config.output) / "scores.json"
    asked = {"config": config.model_dump(mode="json"), "volumes": [volume.name for volume in (tuning, *reported)]}
    if kept.exists() and (known := json.loads(kept.read_text()))["asked"] == asked:
        stored: list[Row] = known["scores"]
        return stored
    model = trained(config, volumes)
    (at, *maps), _ = tissue.predicted_by(str(model), [tuning, *reported], config)
    chosen = tuned([at], [tuning])
    found = [scores(one, volume, chosen) for one, volume in zip(maps, reported, strict=True)]
    kept.write_text(json.dumps({"asked": asked, "scores": found, "thresholds": chosen.model_dump()}, indent=2) + "\n")
    return found


def _described(variant: Variant, config: TrainConfig) -> Row:
    network = build(config.architecture, config.options)
    cost = gflop_a_megavoxel(network, config.stages[0].crop)
    return {
        "tables": variant.tables,
        "network": variant.network,
        "unit": variant.unit,
        "crops": " then ".join("x".join(map(str, stage.crop)) for stage in config.stages),
        "parameters": parameters(network),
        "gflop_a_mvx": None if cost is None else round(cost, 1),
        "steps": config.steps,
        "mvx_trained": round(tissue.voxels(config) / 1e6, 1),
    }


def _mean(found: Sequence[Row]) -> Row:
    """Mean over the seeds and, where there are several, the largest less the smallest IoU."""
    means: Row = {name: round(mean(one[name] for one in found), 3) for name in SCORES}
    ious = [one["iou"] for one in found]
    return {**means, "iou_spread": round(max(ious) - min(ious), 3) if len(found) > 1 else None}


def _begun(config: TrainConfig, volumes: Sequence[LabelledVolume], folder: Path) -> TrainingRun:
    return TrainingRun(config, Samples(volumes, config, shard_count(config)), folder, Group(device_of(config.device)))


def _first_steps(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"stages": (config.stages[0].model_copy(update={"steps": _ROUNDS + 1}),)})


def _seconds(run: TrainingRun) -> float:
    entry = run.advance()
    return float(entry["seconds"] - entry["waited"])


def _asked() -> tuple[Path, Budget]:
    defaults = Budget()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"), help="directory; the same again goes on")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--crop", type=int, nargs=3, default=defaults.crop, metavar=("Z", "Y", "X"))
    parser.add_argument("--wide-crop", type=int, nargs=3, default=defaults.wide_crop, metavar=("Z", "Y", "X"))
    parser.add_argument("--widths", type=int, nargs=5, default=defaults.widths)
    parser.add_argument("--seeds", type=int, nargs="+", default=defaults.seeds)
    parser.add_argument("--shards", type=int, default=defaults.shards)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=defaults.precision)
    given: dict[str, Any] = vars(parser.parse_args())
    output: Path = given.pop("output")
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return output, Budget(**fields)


if __name__ == "__main__":
    where, asked = _asked()
    main(real_tissue(), where, asked)
