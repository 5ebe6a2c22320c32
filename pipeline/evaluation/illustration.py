"""The sheet of a finished comparison: which instances it shows, on which image, and whether an old one still holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline import __version__
from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.finished import open_complete
from pipeline.errors import BadInput
from pipeline.evaluation.blockwise import stored_tables
from pipeline.evaluation.comparison import Comparison
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.examples import chosen_examples, located_examples
from pipeline.evaluation.overlaps import Contingency
from pipeline.evaluation.sheet import drawn_sheet, example_view, marked, png
from pipeline.geometry import FloatVec3
from pipeline.store.identity import digest, identity, stored_files
from pipeline.store.volume import Volume


def sheet_of(
    table: Contingency, made: Comparison, directory: RunDirectory, config: EvaluateConfig, old: Path | None = None
) -> bytes:
    """The sheet of a finished comparison as PNG: reads only blocks and planes that hold what it shows.

    An ``old`` sheet that shows the same instances on the same image is given back as it is, and no voxel is read.

    Raises:
        BadInput: the image is of another shape.
    """
    raw = open_image(made, config)
    stage = made.stage(directory)
    examples = chosen_examples(table.without_small_truth(config.scoring.ignore_below))
    volumes = made.prediction, made.truth, raw
    size = sheet_voxel_size(config, *(volume for volume in volumes if volume is not None))
    image = None if raw is None or old is None else [str(raw), identity(raw), stored_files(raw)]
    shown = {"examples": list(map(asdict, examples)), "image": image, "size": size, "teramito": __version__}
    mark = digest({"blocks": stage.fingerprint, **shown})
    if old is not None and (found := marked(old, mark)):
        return found
    with open_ledger(directory, stage) as ledger:
        places = located_examples(examples, stored_tables(stage, ledger), made.grid, made.prediction, made.truth)
    views = [example_view(example, place, volumes, size) for example, place in zip(examples, places, strict=True)]
    return png(drawn_sheet(views, size), mark)


def open_image(made: Comparison, config: EvaluateConfig) -> Volume | None:
    """The image of a configuration, if it names one.

    Raises:
        BadInput: it is of another shape.
    """
    if config.raw is None:
        return None
    raw = open_complete(config.raw)
    if raw.shape != made.truth.shape:
        raise BadInput(
            f"--raw {config.raw} of shape {raw.shape}",
            f"the image must have the shape of the labels, {made.truth.shape}",
            "outlines are drawn over it",
            "Crop it likewise.",
        )
    return raw


def sheet_voxel_size(config: EvaluateConfig, *volumes: Volume) -> FloatVec3 | None:
    """The voxel size given, or the first that a volume states."""
    stated = (volume.voxel_size_nm for volume in volumes)
    return config.voxel_size_nm or next((size for size in stated if size is not None), None)
