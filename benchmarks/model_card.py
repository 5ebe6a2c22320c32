"""How good is a model, on which tissue? The scores of its card.

``python -m benchmarks.model_card [--model M]``: IoU and Dice of the mask, AP-50 and AP-75 of the instances, by the
pipeline's own prediction and instances at the model's voxel size, with the thresholds the model is shipped with. Each
row says what part the slices had in making the shipped weights: trained on, held out for selection and thresholds
(validation), or never looked at by either (test).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, tissue
from pipeline.model.spec import load_spec, spec_path
from pipeline.run.config import RunConfig
from pipeline.training.segmentation.config import PhantomSource, Source, TrainConfig, TrainStage
from pipeline.training.segmentation.validation import scores
from pipeline.training.segmentation.volumes import load_volume

Row = dict[str, Any]
REPORTED: tuple[tuple[str, Source], ...] = (
    ("test", tissue.lucchi((132, 165))),
    ("validation", tissue.lucchi((112, 132))),
    ("test", tissue.fly((15, 20))),
    ("trained on", tissue.fly((0, 15))),
    ("validation", tissue.mouse((26, 30))),
    ("trained on", tissue.mouse((0, 4))),
    ("validation", PhantomSource(phantom_seed=1002, shape=(16, 384, 384))),
    ("test", PhantomSource(phantom_seed=1004, shape=(48, 256, 256))),
)


def main(model: str, reported: Sequence[tuple[str, Source]] = REPORTED, results: Path = report.RESULTS) -> list[Row]:
    """One row a volume; prints the table and writes the JSON."""
    spec = load_spec(spec_path(model))
    config = TrainConfig(
        name="scores",
        output="none",
        volumes=(reported[0][1],),
        stages=(TrainStage(steps=1),),
        optimiser={"warmup_steps": 0},
        voxel_size_nm=spec.voxel_size_nm,
        normalisation=spec.normalisation,
        patch=spec.patch,
        overlap=spec.overlap,
    )
    rows = [_row(model, config, part, source) for part, source in reported]
    print(f"{spec.name}: {spec.thresholds}")
    print(report.table(rows))
    report.write("model_card", [{"model": spec.name, "sha256": spec.sha256, **row} for row in rows], results)
    return rows


def _row(model: str, config: TrainConfig, part: str, source: Source) -> Row:
    volume = load_volume(source, config)
    (maps,), thresholds = tissue.predicted_by(model, [volume], config)
    size = "x".join(map(str, volume.raw.shape))
    found = scores(maps, volume, thresholds)
    return {"volume": tissue.named(source), "part": part, "voxels": size, **found, "truth": _objects(volume.instances)}


def _objects(instances: Any) -> int:
    return len(set(instances.ravel().tolist()) - {0})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=RunConfig.model_fields["model"].default)
    given = parser.parse_args()
    tissue.require_data()
    main(given.model)
