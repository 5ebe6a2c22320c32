"""Do Noise2Noise and the evening out of slices help? Real volumes with noise everywhere, or with jumps of brightness.

``python -m benchmarks.noise [--volumes lucchi lucchi10 lucchi10-levels mouse] [--work runs/noise]``. Noise2Noise is
trained on the noisy volume itself, and restores it in a whole run; ``--work`` keeps the trainings, so that the same
command goes on where it was killed. Rows: PSNR and SSIM of what the network was shown against the clean volume;
``jump``, the mean step of its mean from slice to slice; how well it was segmented. Yardsticks: a Gaussian, of the width
that is best against the clean volume, which no user could know, and the median of three slices.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from benchmarks import report
from benchmarks.damage import SCORES, run_config
from benchmarks.damaged_volumes import SEED, Labelled, UInt8, lucchi, mouse, stored
from benchmarks.interpolation import ssim
from flows.drive import run_bare
from pipeline.evaluation.blockwise import evaluate
from pipeline.export.downsample import downsample
from pipeline.geometry import float_vec3
from pipeline.model.normalisation import Normalisation
from pipeline.model.spec import load_spec, spec_path
from pipeline.run.jobs import run_job
from pipeline.store.volume import open_volume
from pipeline.training.restoration.config import RestorationConfig
from pipeline.training.restoration.train import train
from pipeline.training.restoration.validation import psnr

MODEL = "mito-v1"
KINDS = ("gaussian", "poisson")
JUMPS = (1.0, 3.0)
GAIN, SHIFT = 0.05, 6.0  # deviations of a slice's contrast and brightness at strength 1
MIDDLE = 128.0
WIDTHS_NM = (2.5, 5.0, 7.5, 10.0, 15.0, 20.0)
TRAINING = {
    "options": {"width": 16},
    "steps": 1500,
    "optimiser": {"learning_rate": 0.001, "warmup_steps": 100, "decay_steps": 1000},
    "is_balanced": False,
    "precision": "bfloat16",
}
"""What a user may set in pipeline/training/configs/noise2noise.yaml for a CPU and some minutes."""

Row = dict[str, Any]
Settings = dict[str, Any]
Way = tuple[str, UInt8, Settings]
"""Name, grey levels of the input, settings of ``denoise``; none where it is off."""


@dataclass(frozen=True)
class Case:
    """A clean volume with its truth, and the faults it is given.

    Attributes:
        noises: of ``KINDS``, with their deviations at the middle grey level, in grey levels.
        jumps: strengths of the jumps.
        levels: the grey levels that the network takes for 0 and 1, in place of percentiles of what it is shown: noise
            widens those, and restoring narrows them.
    """

    volume: Labelled
    noises: Sequence[tuple[str, float]] = ()
    jumps: Sequence[float] = JUMPS
    levels: tuple[float, float] | None = None


def main(
    cases: Iterable[Case],
    work: Path,
    training: Settings | None = None,
    settings: Settings | None = None,
    results: Path = report.RESULTS,
) -> list[Row]:
    """Measure, print the table, write the JSON after each volume.

    Args:
        cases: what is run over.
        work: where the trainings are kept.
        training: fields of a ``RestorationConfig`` in place of ``TRAINING``.
        settings: further settings of the runs.
        results: where the JSON goes.

    Returns:
        One row a volume, fault, strength and way.
    """
    rows: list[Row] = []
    for case in cases:
        volume, chosen = case.volume, {**(settings or {}), **fixed_levels(case.levels, work)}
        head = {"volume": volume.name, "part": volume.part, "levels": case.levels and list(case.levels)}
        for fault, strength, ways in faults(case, work, training or TRAINING):
            for way, raw, denoise in ways:
                row = {**head, "fault": fault, "strength": strength, "way": way}
                rows.append({**row, **measured(volume, raw, denoise, chosen)})
                print(rows[-1], flush=True)
        report.write("noise", rows, results)
    print(f"seed {SEED}\n{report.table(rows)}")
    return rows


def faults(case: Case, work: Path, training: Settings) -> Iterator[tuple[str, float, Iterator[Way]]]:
    """Each fault of a volume with its strength, and the ways to run over it; first none."""
    volume = case.volume
    yield "none", 0.0, jump_ways(volume, 0.0, work)
    for kind, deviation in case.noises:
        yield kind, deviation, noise_ways(volume, kind, deviation, work, training)
    for strength in case.jumps:
        yield "jumps", strength, jump_ways(volume, strength, work)


def measured(volume: Labelled, raw: UInt8, denoise: Settings, settings: Settings) -> Row:
    """What the network was shown: how near it is to the clean volume, its jumps, and how well it was segmented."""
    scores, shown = ran(volume, raw, denoise, settings)
    similar = [ssim(image, truth) for image, truth in zip(shown, volume.raw, strict=True)]
    jump = np.abs(np.diff(shown.mean(axis=(1, 2)))).mean()
    near = {"psnr": np.mean(psnr(shown, volume.raw)), "ssim": np.mean(similar), "jump": jump}
    return {**{name: float(value) for name, value in near.items()}, **scores}


def jump_ways(volume: Labelled, strength: float, work: Path) -> Iterator[Way]:
    """With jumps, as they are and evened out; of strength 0 they are none."""
    raw = jumping(volume.raw, strength) if strength else volume.raw
    yield "as it is", raw, {}
    yield "evened", raw, evening(volume, work)


def noise_ways(volume: Labelled, kind: str, deviation: float, work: Path, training: Settings) -> Iterator[Way]:
    """With noise, as it is, restored by a network trained on it, and filtered."""
    raw = noisy(volume.raw, kind, deviation)
    yield "as it is", raw, {}
    model = trained(volume, raw, work / _slug(volume) / f"{kind}-{deviation:g}", training)
    yield "noise2noise", raw, {"model": str(model)}
    yield "gaussian", best_gaussian(raw, volume), {}
    yield "median", ndimage.median_filter(raw, (3, 1, 1)), {}


def fixed_levels(levels: tuple[float, float] | None, work: Path) -> Settings:
    """Settings with which the default network takes two grey levels for 0 and 1, whatever the volume holds."""
    if levels is None:
        return {}
    shipped = spec_path(MODEL)
    spec = load_spec(shipped)
    clip = spec.normalisation.clip
    folder = work / f"{MODEL}-{levels[0]:g}-{levels[1]:g}"
    folder.mkdir(parents=True, exist_ok=True)
    fixed = spec.model_copy(update={"normalisation": Normalisation(kind="fixed", levels=levels, clip=clip)})
    (folder / spec.weights).write_bytes((shipped.parent / spec.weights).read_bytes())
    path = folder / shipped.name
    path.write_text(fixed.model_dump_json())
    return {"model": str(path)}


def noisy(raw: UInt8, kind: str, deviation: float) -> UInt8:
    """Grey levels with noise of some deviation at the middle grey level; Poisson's grows with the root of the level."""
    random, exact = np.random.default_rng(SEED), raw.astype(np.float64)
    if kind == "gaussian":
        return _grey(random.normal(exact, deviation))
    level = deviation**2 / MIDDLE  # grey levels an electron
    return _grey(random.poisson(exact / level) * level)


def jumping(raw: UInt8, strength: float) -> UInt8:
    """Every slice with a contrast and a brightness of its own."""
    random = np.random.default_rng(SEED)
    gain, shift = random.normal([[1.0], [0.0]], [[GAIN * strength], [SHIFT * strength]], (2, len(raw)))[..., None, None]
    return _grey(gain * (raw - MIDDLE) + MIDDLE + shift)


def best_gaussian(raw: UInt8, volume: Labelled) -> UInt8:
    """The Gaussian-filtered grey levels, of the width in nm that comes nearest to the clean volume."""
    widths = [[nm / size for size in volume.voxel_size_nm] for nm in WIDTHS_NM]
    filtered = (_grey(ndimage.gaussian_filter(raw.astype(np.float32), width)) for width in widths)
    return max(filtered, key=lambda grey: float(np.mean(psnr(grey, volume.raw))))


def evening(volume: Labelled, work: Path) -> Settings:
    """Settings that even out slices and do nothing else: with a mask in which nothing is damaged."""
    path = work / _slug(volume) / "sound.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros_like(volume.raw), compression="zlib")
    return {"normalise_slices": True, "mask": str(path)}


def trained(volume: Labelled, raw: UInt8, folder: Path, training: Settings) -> Path:
    """A Noise2Noise network trained on ``raw``; its specification. Goes on with a training begun in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "raw.npz", raw=raw)
    source = {"raw": str(folder / "raw.npz"), "voxel_size_nm": volume.voxel_size_nm}
    fields = {"task": "noise2noise", "name": "noise2noise", "output": str(folder / "training"), "volumes": [source]}
    return train(RestorationConfig.model_validate_json(json.dumps({**fields, **training})))


def ran(volume: Labelled, raw: UInt8, denoise: Settings, settings: Settings) -> tuple[Row, UInt8]:
    """One whole run: its scores, and the grey levels that the network was shown."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        address, truth = (
            stored(place / name, values, volume.voxel_size_nm)
            for name, values in (("raw", raw), ("truth", volume.truth))
        )
        chosen = {**settings, "denoise": denoise}
        run_bare(run_job(run_config(address, place / "run", chosen, "auto" if denoise else "off"))[0], None)
        scores = evaluate(open_volume(str(place / "run/arrays/segmentation")), open_volume(truth))
        shown = open_volume(str(place / "run/arrays/restored") if denoise else address)
        return {name: scores[name] for name in SCORES}, shown.read(shown.box)


def lucchi_10() -> Labelled:
    """Lucchi at 10 nm, where the network sees each voxel as it is; at 5 nm it sees the mean of eight."""
    fine, factor = lucchi(), (2, 2, 2)
    raw, truth = downsample(fine.raw, factor, "image"), downsample(fine.truth, factor, "segmentation")
    size = float_vec3(2 * nm for nm in fine.voxel_size_nm)
    return replace(fine, name=f"{fine.name} at 10 nm", raw=raw, truth=truth, voxel_size_nm=size)


def _slug(volume: Labelled) -> str:
    return volume.name.replace(" ", "-")


def _grey(values: Any) -> UInt8:
    grey: UInt8 = np.clip(np.rint(values), 1, 255).astype(np.uint8)  # 0 is padding
    return grey


# At 5 nm the network sees the mean of eight voxels: noise of 40 costs 0.01 IoU there.
NOISES_10 = (("gaussian", 40.0), ("gaussian", 80.0), ("poisson", 40.0))
LEVELS_5 = (52.0, 220.0)  # percentiles of lucchi at 5 nm, which the network was trained with; at 10 nm they are 61, 211
CASES: dict[str, Callable[[], Case]] = {
    "lucchi": lambda: Case(lucchi(), (("gaussian", 80.0),)),
    "lucchi10": lambda: Case(lucchi_10(), NOISES_10, ()),
    "lucchi10-levels": lambda: Case(lucchi_10(), NOISES_10, (), LEVELS_5),
    "mouse": lambda: Case(mouse(), (("gaussian", 40.0),)),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--work", type=Path, default=Path("runs/noise"), help="folder that keeps the trainings")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    main((CASES[name]() for name in given.volumes), given.work, results=given.results)
