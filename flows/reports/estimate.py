"""What a run will cost, before it starts: blocks, patches, bytes, memory, disk, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from flows.terminal.pace import duration
from pipeline.engine.stage import Stage
from pipeline.export.stage import ExportStage
from pipeline.geometry import vec3
from pipeline.instances.stages.label import LabelStage
from pipeline.instances.stored.collars import Collars
from pipeline.model.ensemble import Member, one_or_several
from pipeline.model.spec import spec_path
from pipeline.predict.tta import variants
from pipeline.run.job import Job
from pipeline.run.plan import Plan

# Bytes on disk a voxel, measured on FIB-SEM at 5 nm and on the phantom at 10 nm: maps 0.3 to 0.5, labels 0.02 to 0.03.
MAP_BYTES = 0.5
LABEL_BYTES = 0.03
RESTORED_BYTES = 1.1  # the restored volume, the mask and the cells that find damage (2 bytes for 4 to 1024 voxels)
# A voxel of a collar, which lies in the slab of each face it is near: 0.11 on FIB-SEM at 5 nm, 0.35 on the phantom.
COLLAR_BYTES = 0.3
# All tables together, collars left out, grow with the labels: a block took 4 to 22 kB, whether of 16x32x32, 96x320x320
# or 33x768x1024 voxels; the instance table, 10 kB for some hundred instances, is in it.
TABLE_BYTES = 0.02
TABLE_BYTES_A_BLOCK = 4000
RAW_EXPORT_FACTOR = 1.2  # the mips add a seventh, gzip takes a little
AVERAGED_MAPS = 14  # two channels each: four halves of a sum of 16, the newest sum, and an answer before and after
ACTIVATIONS = 9  # maps of the first width alive at once: peak memory of one patch, 148 MB for 32x128x128 at width 8


def estimate(plan: Plan, job: Job, measure: bool = True) -> dict[str, Any]:
    """The cost of a run. ``measure`` loads the models and times one patch through each of them on this machine.

    ``network_calls`` counts patches through a network: patches computed x variants x members. ``seconds_a_call`` has
    one entry a member, ``seconds_a_patch`` is all variants through all members.
    """
    op = plan.op
    computed, read = _work(plan)
    patches = len(op.lattice)
    workers = _workers(plan)
    views = len(variants(op.tta))
    calls = [_seconds_a_call(plan, member) for member in plan.members] if measure else None
    seconds = None if calls is None else views * sum(calls)
    stages = [stage for step in job.steps for stage in step.stages]
    exported = sum(prod(stage.grid.extent) for stage in stages if isinstance(stage, ExportStage))
    return {
        "input": str(plan.source),
        "extent": list(plan.source.shape),
        "voxel_size_nm": list(plan.voxel_size_nm),
        "model": one_or_several([member.spec.name for member in plan.members]),
        "members": len(plan.members),
        "denoise": _denoising(plan),
        "tta": op.tta,
        "variants": views,
        "scale": list(op.scale),
        "patch": list(op.patch),
        "overlap": list(op.overlap),
        "block": list(plan.grid.block),
        "chunk": list(plan.chunks),
        "blocks": len(plan.grid),
        "patches": patches,
        "patches_computed": computed,
        "network_calls": computed * views * len(plan.members),
        "bytes_in": plan.source.nbytes,
        "bytes_read": read * np.dtype(plan.source.dtype).itemsize,
        "bytes_out": 10 * plan.source.box.size + exported,
        "disk_bytes": _disk(plan, stages),
        "memory_bytes_a_worker": _memory(plan),
        "workers": workers,
        "seconds_a_call": calls,
        "seconds_a_patch": seconds,
        "seconds": None if seconds is None else computed * seconds / workers + 2e-8 * plan.source.box.size,
        "warnings": list(job.warnings),
    }


def _workers(plan: Plan) -> int:
    from workers.cluster import worker_count  # it loads Dask

    return worker_count(plan.config.cluster)


def estimate_lines(facts: dict[str, Any]) -> list[str]:
    """An estimate for people."""
    wasted = facts["patches_computed"] / facts["patches"] - 1
    amplified = facts["bytes_read"] / facts["bytes_in"]
    rows = [
        ("volume", f"{_by(facts['extent'])} voxels of {_by(facts['voxel_size_nm'])} nm, {_bytes(facts['bytes_in'])}"),
        ("model", f"{_models(facts)}, voxels averaged {_by(facts['scale'])} before it"),
        *([("denoise", facts["denoise"])] if facts["denoise"] else []),
        ("blocks", f"{facts['blocks']:,} of {_by(facts['block'])}, stored chunks {_by(facts['chunk'])}"),
        ("patches", f"{facts['patches_computed']:,} of {_by(facts['patch'])}, overlap {_by(facts['overlap'])}"),
        ("", f"{wasted:.0%} of them computed twice at block faces; larger blocks lower this"),
        ("network", _calls(facts)),
        ("read", f"{_bytes(facts['bytes_read'])}, {amplified:.1f} times the volume"),
        ("written", f"{_bytes(facts['bytes_out'])} before compression, about {_bytes(facts['disk_bytes'])} on disk"),
        ("memory", f"about {_bytes(facts['memory_bytes_a_worker'])} a worker, {facts['workers']} workers"),
    ]
    if facts["seconds"] is not None:
        each = " + ".join(f"{seconds:.2f}" for seconds in facts["seconds_a_call"])
        parts = "" if facts["variants"] * facts["members"] == 1 else f" = {facts['variants']} x ({each})"
        speed = f"{facts['seconds_a_patch']:.2f} s a patch{parts}, timed here just now"
        rows.append(("time", f"about {duration(facts['seconds'])} on workers like this machine's ({speed})"))
    return [f"{name:9} {text}" for name, text in rows] + [f"warning: {text}" for text in facts["warnings"]]


def _work(plan: Plan) -> tuple[int, int]:
    """Patches computed and voxels read over all blocks: products of sums per axis, so 10^6 blocks cost nothing."""
    patches, voxels = [], []
    for axis in range(3):
        blocks = [plan.grid.at(vec3(i if a == axis else 0 for a in range(3))) for i in range(plan.grid.shape[axis])]
        needed = [plan.op.needed(block.core) for block in blocks]
        patches.append(sum(len(plan.op.lattice.starts_touching(axis, box, plan.op.weights)) for box in needed))
        voxels.append(sum(plan.op.read_box(block.core).shape[axis] for block in blocks))
    return prod(patches), prod(voxels)


def _models(facts: dict[str, Any]) -> str:
    return facts["model"] if facts["members"] == 1 else "the mean of " + ", ".join(facts["model"])


def _denoising(plan: Plan) -> str | None:
    """What is restored, in words; its time depends on how much that is, and is not estimated."""
    denoising = plan.denoising
    if denoising is None:
        return None
    if denoising.everywhere:
        return f"every slice by {denoising.spec.name}"
    where = "damage that is found" if denoising.mask is None else f"what {denoising.settings.mask} marks"
    return f"{where} by {denoising.spec.name}, across {denoising.settings.max_gap} slices at most"


def _calls(facts: dict[str, Any]) -> str:
    patches, views, members = facts["patches_computed"], facts["variants"], facts["members"]
    parts = f"{patches:,} patches x {views} variant{'s' * (views > 1)} x {members} model{'s' * (members > 1)}"
    return f"{facts['network_calls']:,} calls of a patch: {parts}"


def _memory(plan: Plan) -> int:
    block, patch = prod(plan.grid.block), prod(plan.op.patch)
    coarse = block / prod(plan.op.scale)
    # Members compute one after another; each keeps its weights and its normalised patches, and there is one sum.
    widest = max(member.spec.top_width for member in plan.members)
    averaging = AVERAGED_MAPS if len(plan.members) * len(variants(plan.op.tta)) > 1 else 0
    network = 4 * patch * plan.op.batch * (widest * ACTIVATIONS + len(plan.members) + averaging)
    network += sum(_weight_bytes(member) for member in plan.members)
    reading = prod(plan.op.read_box(plan.grid[0].core).shape) * 2
    predicting = network + 3 * 4 * coarse + plan.config.cluster.threads_per_worker * (reading + 12 * block)
    labelling = plan.config.cluster.threads_per_worker * 24 * block
    return int(max(predicting, labelling)) + 400_000_000  # the libraries themselves


def _disk(plan: Plan, stages: Sequence[Stage]) -> int:
    voxels = plan.source.box.size
    on = plan.denoising is not None
    # A layer of grey levels is as large as the raw one of 8 bits; the mask of what was replaced is next to nothing.
    grey = {"raw": RAW_EXPORT_FACTOR * plan.source.nbytes / voxels, "restored": RAW_EXPORT_FACTOR * on, "replaced": 0.0}
    exported = sum(grey.get(name, MAP_BYTES) for name in plan.config.export.layers)
    exported += RESTORED_BYTES * on
    collars = sum(COLLAR_BYTES * _collar_share(stage.collars) for stage in stages if isinstance(stage, LabelStage))
    each = 2 * MAP_BYTES + LABEL_BYTES + exported + collars + TABLE_BYTES
    return int(voxels * each) + TABLE_BYTES_A_BLOCK * len(plan.grid)


def _collar_share(collars: Collars | None) -> float:
    """Voxels stored in collars for each one of a volume: two slabs of each block on each axis."""
    if collars is None:
        return 0.0
    return sum(2 * min(thick / side, 1.0) for thick, side in zip(collars.thickness, collars.grid.block, strict=True))


def _weight_bytes(member: Member) -> int:
    return (spec_path(member.model).parent / member.spec.weights).stat().st_size


def _seconds_a_call(plan: Plan, member: Member) -> float:
    from pipeline.model.load import load_model

    model = load_model(member.model, plan.config.predict.device)
    patches = np.zeros((plan.op.batch, 1, *plan.op.patch), np.float32)
    model.predict(patches)
    started = time.perf_counter()
    model.predict(patches)
    return (time.perf_counter() - started) / plan.op.batch


def _by(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
