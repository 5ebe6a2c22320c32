"""A run begun by an earlier version goes on: what its ledgers and tables are bound to has not moved.

The fingerprints in ``pinned/fingerprints.json`` chain through every stage. One that changes makes that stage and all
after it again in every run directory there is, so it may only change with a change of a result: then raise the stage's
``version`` and write the file anew, ``python tests/end_to_end/test_pinned_fingerprints.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_restorer import damaged_values, denoise, write_tiny_restorer
from tiny_run import ALL_LAYERS, job_of, phantom_values, settings, write_tiny_model, write_volume

from flows.drive import drive
from pipeline.engine.executor import SerialExecutor
from pipeline.evaluation.comparison import comparison
from pipeline.evaluation.config import EvaluateConfig
from pipeline.run.config import InstancesConfig
from pipeline.run.job import Job
from pipeline.run.jobs import instances_job
from pipeline.settings import parse_settings
from pipeline.store.identity import digest
from pipeline.store.volume import open_volume

PINNED = Path(__file__).parent / "pinned" / "fingerprints.json"
CUTS = ([40, 96, 96], [13, 40, 37], [16, 48, 48])
SHOWN = ("id", "voxels")


class Placed:
    """In place of ``json`` where fingerprints are made: the folder of a test, and what torch draws, get fixed names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def dumps(self, parts: Any, **options: Any) -> str:
        text = json.dumps(parts, **options)
        for found, name in self.names.items():
            text = text.replace(found, name)
        return text

    def __getattr__(self, name: str) -> Any:
        return getattr(json, name)


def found_in(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Fingerprints of the stages and names of the global tables of four kinds of run, and what instances come out."""
    model, restorer = write_tiny_model(folder / "model"), write_tiny_restorer(folder / "restorer")
    second = write_tiny_model(folder / "second", seed=6)
    hashes = {json.loads(path.read_text())["sha256"]: str(path.parent.name) for path in (model, restorer, second)}
    raw, damaged = write_volume(folder / "raw", phantom_values()), write_volume(folder / "damaged", damaged_values()[1])
    semantic, boundary = write_maps(folder)
    for path in folder.rglob("zarr.json"):
        os.utime(path, ns=(10**18, 10**18))
    patch.setattr(sys.modules[digest.__module__], "json", Placed({str(folder): "/pinned", **hashes}))
    return {
        "plain": stages_of(job_of(settings(raw, folder / "plain", model, ALL_LAYERS))),
        "ensemble": stages_of(job_of(settings(raw, folder / "ensemble", model, ensemble(model, second)))),
        "denoised": stages_of(job_of(settings(damaged, folder / "denoised", model, denoise(restorer)))),
        "masked": stages_of(job_of(settings(damaged, folder / "masked", model, masked(restorer, folder)))),
        "instances": {str(cut): made(folder, semantic, boundary, cut) for cut in CUTS},
        "everything": stages_of(maps_job(folder, semantic, boundary, [16, 48, 48], EVERYTHING)),
        "watershed": stages_of(maps_job(folder, semantic, boundary, [16, 48, 48], {"preset": "bc_watershed"})),
        "evaluate": compared(folder, raw),
    }


EVERYTHING = {"join_gap": 1, "drop_border": True, "fill_holes_nm": 30.0, "connectivity": 26}


def ensemble(*models: Path) -> dict[str, Any]:
    """Settings of a run with several networks."""
    return {"predict.tta": 4, "model": [str(model) for model in models]}


def masked(restorer: Path, folder: Path) -> dict[str, Any]:
    """Settings of a run with a hand-made mask and slices evened out."""
    mask = write_volume(folder / "mask", damaged_values()[2], (10.0, 40.0, 40.0), (4, 16, 16))
    for path in Path(mask).rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return denoise(restorer, mask, normalise_slices=True)


def write_maps(folder: Path) -> tuple[str, str]:
    """Probability maps made of integers alone, the same on every machine."""
    z, y, x = np.ogrid[:40, :96, :96]
    semantic = ((z * 37 + y * y // 11 + x * x // 7 + y * x // 13) % 256).astype(np.uint8)
    boundary = ((z * z * 3 + y * 5 + x * x // 5) % 200).astype(np.uint8)
    return write_volume(folder / "semantic", semantic), write_volume(folder / "boundary", boundary)


def maps_job(folder: Path, semantic: str, boundary: str, cut: list[int], instances: Mapping[str, Any]) -> Job:
    """The job that makes instances of the two maps."""
    output = folder / f"instances-{'-'.join(map(str, cut))}"
    values = {"semantic": semantic, "boundary": boundary, "output": str(output), "block": {"shape": cut}}
    return instances_job(parse_settings(InstancesConfig, {**values, "instances": {"minimum_voxels": 5, **instances}}))


def made(folder: Path, semantic: str, boundary: str, cut: list[int]) -> dict[str, Any]:
    """The same, run: with what came out."""
    job = maps_job(folder, semantic, boundary, cut, {})
    with job.opened():
        drive(job, SerialExecutor(), None)
    segmentation = open_volume(str(job.directory.root / "arrays" / "segmentation"))
    voxels = segmentation.read(segmentation.box)
    columns = parquet.read_table(job.directory.root / "instances.parquet").select(SHOWN).to_pydict()
    assert voxels.dtype == np.uint64 and voxels.max() > 20
    return {
        **stages_of(job),
        "segmentation": hashlib.sha256(voxels.tobytes()).hexdigest(),
        "table": hashlib.sha256(json.dumps(columns).encode()).hexdigest(),
    }


def stages_of(job: Job) -> dict[str, Any]:
    """The fingerprint of every stage of a job, and the tables of every step."""
    return {
        "stages": {stage.name: stage.fingerprint for step in job.steps for stage in step.all_stages()},
        "tables": {step.name: [path.name for path in step.tables] for step in job.steps},
    }


def compared(folder: Path, raw: str) -> dict[str, str]:
    """The fingerprint of a comparison that keeps its tables in a directory."""
    config = EvaluateConfig(prediction=raw, truth=raw, output=str(folder / "compared"))
    comparison_ = comparison(config)
    assert comparison_.output is not None
    patched = {side: {**facts, "file": None} for side, facts in comparison_.settings.items() if side != "block"}
    comparison_.__dict__["settings"] = {**comparison_.settings, **patched}  # times of files differ from run to run
    return {"overlap": comparison_.stage(comparison_.output).fingerprint}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Of the whole module."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What this version makes."""
    return found_in(tmp_path_factory.mktemp("pinned"), patch)


@pytest.mark.parametrize("kind", json.loads(PINNED.read_text()) if PINNED.exists() else [])
def test_a_run_of_an_earlier_version_resumes(kind: str, found: dict[str, Any]) -> None:
    assert found[kind] == json.loads(PINNED.read_text())[kind]


def test_every_kind_of_run_is_pinned(found: dict[str, Any]) -> None:
    assert list(found) == list(json.loads(PINNED.read_text()))
    names = {name for kind in found.values() for name in kind.get("stages", {})}
    assert names >= {"inspect", "compare", "damage", "restore", "predict", "label", "stitch", "grow", "bridge"}


def test_the_cut_decides_no_voxel(found: dict[str, Any]) -> None:
    assert len({(cut["segmentation"], cut["table"]) for cut in found["instances"].values()}) == 1


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as context:
        PINNED.write_text(json.dumps(found_in(Path(place), context), indent=1) + "\n")
