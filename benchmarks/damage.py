"""Does denoising find planted damage, and give back what the damage cost? On real volumes and on the phantom.

``python -m benchmarks.damage [--volumes lucchi fly mouse phantom] [--strengths 0.5 1 2] [--segmented 1]``. Tables:
how much of each kind of damage is found (no network runs for it); what denoising does to clean input; and the scores of
clean, damaged and restored input with damage of all kinds. All runs are whole runs of the pipeline with its defaults.
Precision and recall count pixels, although detection tells cells of some 40 nm: small damage cannot have precision 1.

With ``--by-kind`` another table instead: what each kind of damage costs and how much of that stays. In twenty slices
there is one event of each kind, and what it costs depends more on where it lies than on its kind: scores are those of
several seeds, and the targets are for their mean.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import report
from benchmarks.damaged_volumes import SEED, VOLUMES, Labelled, UInt8, stored
from flows.drive import run_bare
from pipeline.engine.step import run_step
from pipeline.evaluation.blockwise import evaluate
from pipeline.image.mask import open_mask
from pipeline.phantom.damage import KINDS
from pipeline.run.config import RunConfig, parse_config
from pipeline.run.job import Job
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume
from workers.cluster import open_executor

STRENGTHS = (0.5, 1.0, 2.0)
SEEDS = 3  # of one alone the share that is given back says little: in 20 slices a kind of damage falls on one or two
RECOVERED, CLEAN_LOSS = 0.5, 0.002  # targets
SCORES = ("iou", "ap75")
IN_PLANE = np.array([[[0, 0, 0]] * 3, [[1, 1, 1]] * 3, [[0, 0, 0]] * 3])
SMALLEST_REGION_NM = 40.0

Row = dict[str, Any]
Settings = dict[str, Any]


def main(
    volumes: Sequence[Labelled],
    strengths: Sequence[float] = STRENGTHS,
    settings: Settings | None = None,
    segmented: Sequence[float] | None = None,
    seeds: Sequence[int] = range(SEED, SEED + SEEDS),
    results: Path = report.RESULTS,
) -> list[Row]:
    """Measure, print the tables, write a JSON for each volume as soon as it is done.

    Args:
        volumes: where damage is planted.
        strengths: of the damage.
        settings: further settings of the runs.
        segmented: the strengths for which the network runs too, all of them if missing; with none of them the
            detection table is all there is.
        seeds: of the damage that is planted for these; detection is measured with the usual one.
        results: where the JSON goes.

    Returns:
        The rows of all tables, told apart by ``table``.
    """
    given, every = settings or {}, []
    for volume in volumes:
        rows = list(detections(volume, strengths, given))
        if segmented is None or segmented:
            rows += segmentations(volume, strengths if segmented is None else segmented, seeds, given)
        for name in ("detection", "clean", "damaged"):
            chosen = [
                {key: value for key, value in row.items() if key != "table"} for row in rows if row["table"] == name
            ]
            print(f"{name}\n{report.table(chosen)}\n", flush=True)
        report.write(f"damage_{volume.name.split()[0]}", rows, results)
        every += rows
    print(f"targets: mean recovered >= {RECOVERED}, clean input loses <= {CLEAN_LOSS} IoU")
    return every


def kinds_main(
    volumes: Sequence[Labelled],
    strengths: Sequence[float],
    seeds: Sequence[int],
    settings: Settings | None = None,
    results: Path = report.RESULTS,
) -> list[Row]:
    """Measure ``by_kind``; print a table and write a JSON for each volume."""
    every = []
    for volume in volumes:
        rows = []
        for strength in strengths:
            found = by_kind(volume, strength, seeds, settings or {})
            print(report.table([row for row in found if row["seed"] == "mean" or row["kind"] == "all"]), flush=True)
            rows += found
        report.write(f"damage_by_kind_{volume.name.split()[0]}", rows, results)
        every += rows
    return every


def detections(volume: Labelled, strengths: Sequence[float], settings: Settings) -> Iterator[Row]:
    """One row for the clean volume, and one for each kind and strength."""
    for kind, strength in (("none", 0.0), *((kind, strength) for kind in KINDS for strength in strengths)):
        raw, truth = volume.planted_kind(strength, kind) if strength else (volume.raw, np.zeros_like(volume.raw))
        with tempfile.TemporaryDirectory() as folder:
            found = found_damage(volume, raw, Path(folder), settings)
        smallest = SMALLEST_REGION_NM**2 / (volume.voxel_size_nm[1] * volume.voxel_size_nm[2])
        scores = detection_scores(found, truth > 0, smallest)
        head = {"table": "detection", "volume": volume.name, "part": volume.part}
        yield {**head, "kind": kind, "strength": strength, **scores}


def detection_scores(found: NDArray[np.bool_], truth: NDArray[np.bool_], smallest: float) -> Row:
    """How well ``found`` covers ``truth``, both (z, y, x).

    ``regions`` are pieces of the truth in one slice of at least ``smallest`` pixels, found where half of one is.
    ``elsewhere``: the share flagged of the slices in which nothing was planted. None where there is nothing to count.
    """
    pieces, count = ndimage.label(truth, IN_PLANE)
    numbers = np.arange(1, count + 1)
    large = np.bincount(pieces.ravel(), minlength=count + 1)[1:] >= smallest
    covered = np.asarray(ndimage.mean(found, pieces, numbers)) >= 0.5 if count else np.zeros(0, np.bool_)
    sound = ~truth.any(axis=(1, 2))
    both = int((found & truth).sum())
    return {
        "planted": _share(int(truth.sum()), truth.size),
        "precision": _share(both, int(found.sum())),
        "recall": _share(both, int(truth.sum())),
        "regions": int(large.sum()),
        "regions_found": int((covered & large).sum()),
        "elsewhere": _share(int(found[sound].sum()), int(sound.sum()) * truth[0].size),
    }


def found_damage(volume: Labelled, raw: UInt8, folder: Path, settings: Settings) -> NDArray[np.bool_]:
    """Where detection finds damage, at every voxel; runs the steps up to the damage map alone."""
    config = run_config(stored(folder / "raw", raw, volume.voxel_size_nm), folder / "run", settings, "auto")
    job, plan = run_job(config)
    run_until(job, "restore")
    return open_mask(job.directory.array("damage"), plan.source, "the damage map").read(plan.source.box)


def run_until(job: Job, stop: str) -> None:
    """Run the steps of a job that come before the step ``stop``."""
    names = [step.name for step in job.steps]
    with job.opened(), open_executor(job.cluster) as executor:
        for number, step in enumerate(job.steps[: names.index(stop)]):
            run_step(job.directory, step, executor, None, job.steps[:number])


def segmentations(
    volume: Labelled, strengths: Sequence[float], seeds: Sequence[int], settings: Settings
) -> Iterator[Row]:
    """The row of the clean volume, with denoising and without; then of each strength one a seed, and their mean."""
    head = {"volume": volume.name, "part": volume.part}
    clean, _ = scored(volume, volume.raw, settings, "off")
    denoised, share = scored(volume, volume.raw, settings, "auto")
    scores = {f"{name}_{way}": of[name] for name in SCORES for way, of in (("clean", clean), ("denoised", denoised))}
    loss = clean["iou"] - denoised["iou"]
    yield {"table": "clean", **head, "replaced": share, **scores, "loss": loss, "met": loss <= CLEAN_LOSS}
    for strength in strengths:
        found = []
        for seed in seeds:
            raw, truth = volume.planted(strength, seed)
            damaged, _ = scored(volume, raw, settings, "off")
            restored, share = scored(volume, raw, settings, "auto")
            shares = {"planted": float((truth > 0).mean()), "replaced": share}
            found.append((shares, damaged, restored))
        names = (*map(str, seeds), "mean")
        for name, (shares, damaged, restored) in zip(names, (*found, _mean(found)), strict=True):
            row = {"table": "damaged", **head, "strength": strength, "seed": name}
            yield {**row, **shares, **recovered(clean, damaged, restored)}


def _mean(found: Sequence[tuple[Row, Row, Row]]) -> tuple[Row, ...]:
    """The means of the numbers of several seeds."""
    parts = zip(*found, strict=True)
    return tuple({name: float(np.mean([one[name] for one in part])) for name in part[0]} for part in parts)


def recovered(clean: Row, damaged: Row, restored: Row) -> Row:
    """The scores of three runs, and the share of the damage's cost in each score that restoring gives back.

    The share is None where damage cost less than the 0.002 that clean input may lose: there is nothing to give back.
    """
    row: Row = {}
    for name in SCORES:
        values = {"clean": clean[name], "damaged": damaged[name], "restored": restored[name]}
        cost = values["clean"] - values["damaged"]
        back = (values["restored"] - values["damaged"]) / cost if cost > CLEAN_LOSS else None
        row |= {f"{name}_{way}": value for way, value in values.items()}
        row |= {f"{name}_recovered": back, f"{name}_met": None if back is None else back >= RECOVERED}
    return row


def by_kind(volume: Labelled, strength: float, seeds: Sequence[int], settings: Settings) -> list[Row]:
    """What each kind of damage costs and how much of it stays, in IoU; of each seed and on average (seed "mean").

    A change of the IoU is a sum over slices, and a slice is counted for the kind of damage nearest to it.
    """
    clean = slice_counts(volume, volume.raw, settings, "off")
    rows: list[Row] = []
    for seed in seeds:
        raw, _ = volume.planted(strength, seed)
        lost = [-iou_changes(clean, slice_counts(volume, raw, settings, denoise)) for denoise in ("off", "auto")]
        nearest = np.array(volume.nearest_kinds(strength, seed))
        for kind in (*KINDS, "all"):
            cost, left = (float(one[(nearest == kind) | (kind == "all")].sum()) for one in lost)
            rows.append({"kind": kind, "seed": seed, "cost": cost, "left": left})
    for kind in (*KINDS, "all"):
        cost, left = (float(np.mean([row[name] for row in rows if row["kind"] == kind])) for name in ("cost", "left"))
        rows.append({"kind": kind, "seed": "mean", "cost": cost, "left": left})
    head = {"volume": volume.name, "part": volume.part, "strength": strength}
    return [
        head | row | {"recovered": 1 - row["left"] / row["cost"] if row["cost"] > CLEAN_LOSS else None} for row in rows
    ]


def slice_counts(volume: Labelled, raw: UInt8, settings: Settings, denoise: str) -> NDArray[np.int64]:
    """(slices, 2): the voxels that a whole run and the truth share, and those that either has."""
    with finished(volume, raw, settings, denoise) as run:
        segmentation = open_volume(str(run / "arrays/segmentation"))
        found, truth = segmentation.read(segmentation.box) > 0, volume.truth > 0
    return np.stack([(found & truth).sum((1, 2)), (found | truth).sum((1, 2))], axis=1)


def iou_changes(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each slice adds to the change of the IoU of the volume, from two ``slice_counts``; the sum is the change."""
    shared, either = (after - before).T
    total = before.sum(axis=0)
    changes: NDArray[np.float64] = (shared - total[0] / total[1] * either) / after[:, 1].sum()
    return changes


def scored(volume: Labelled, raw: UInt8, settings: Settings, denoise: str) -> tuple[Row, float]:
    """The scores of one whole run, and the share of the voxels that were replaced."""
    with finished(volume, raw, settings, denoise) as run:
        truth = stored(run.parent / "truth", volume.truth, volume.voxel_size_nm)
        scores = evaluate(open_volume(str(run / "arrays/segmentation")), open_volume(truth))
        return {name: scores[name] for name in SCORES}, _replaced(run / "arrays/replaced")


@contextmanager
def finished(volume: Labelled, raw: UInt8, settings: Settings, denoise: str) -> Iterator[Path]:
    """The directory of one whole run, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        config = run_config(stored(place / "raw", raw, volume.voxel_size_nm), place / "run", settings, denoise)
        run_bare(run_job(config)[0], None)
        yield place / "run"


def run_config(raw: str, output: Path, settings: Settings, denoise: str) -> RunConfig:
    """The configuration of one run; ``settings`` may hold others of ``denoise``."""
    cluster = {"kind": "none", "threads_per_worker": 1}
    chosen = {**settings.get("denoise", {}), "mode": "auto"} if denoise == "auto" else {"mode": "off"}
    base = {"cluster": cluster, "export": {"layers": ["segmentation"]}, **settings}
    return parse_config({**base, "denoise": chosen, "input": raw, "output": str(output)})


def _replaced(path: Path) -> float:
    if not path.exists():
        return 0.0
    volume = open_volume(str(path))
    return float((volume.read(volume.box) > 0).mean())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", nargs="+", choices=VOLUMES, default=list(VOLUMES))
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS))
    parser.add_argument("--restorer", help="a name or a path; the default of denoise.model if missing")
    parser.add_argument(
        "--segmented", nargs="*", type=float, help="strengths for which the network runs; all if missing"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how often damage is planted for the network")
    parser.add_argument("--by-kind", action="store_true", help="only what each kind costs, over as many seeds")
    parser.add_argument("--quick", action="store_true", help="the middle of the plane and the first strength given")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    chosen = [VOLUMES[name]() for name in given.volumes]
    if given.quick:
        chosen, given.strengths, given.segmented = [volume.quick() for volume in chosen], given.strengths[:1], None
    restorer = {"denoise": {"model": given.restorer}} if given.restorer else {}
    seeds = range(SEED, SEED + given.seeds)
    if given.by_kind:
        kinds_main(chosen, given.strengths, seeds, restorer, given.results)
    else:
        main(chosen, given.strengths, restorer, given.segmented, seeds, given.results)
