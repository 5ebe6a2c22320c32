"""The labelled part of a volume on which settings are tuned: its maps, its truth, and whether they suffice."""

from __future__ import annotations

import numpy as np

from pipeline.engine.directory import RunDirectory
from pipeline.engine.finished import open_complete, require_complete_array
from pipeline.engine.manifest import recorded
from pipeline.errors import BadInput
from pipeline.evaluation.tune import LabelledPart, Search
from pipeline.geometry import Box, float_vec3, vec3
from pipeline.image.quantise import to_uint8
from pipeline.instances.settings import InstanceSettings
from pipeline.model.spec import ModelSpec, load_spec
from pipeline.settings import parse_settings
from pipeline.store.formats.address import parse
from pipeline.store.volume import Volume, open_volume

LARGEST_VOXELS = 10**8  # 43 bytes a voxel were held for 26 million with two threads: 5 GB


def present_settings(run: RunDirectory) -> tuple[InstanceSettings, ModelSpec | None]:
    """The instance settings of a run, and the model that completes them."""
    settings = recorded(run)["settings"]
    models = settings.get("model")
    first = models if models is None or isinstance(models, str) else models[0]
    spec = None if first is None else load_spec(first)
    return parse_settings(InstanceSettings, settings.get("instances", {})), spec


def labelled(run: RunDirectory, truth: str, crop: str | None) -> LabelledPart:
    """The maps and the truth of the labelled part, in memory."""
    semantic, boundary = (_map(address, crop) for address in maps_of(run))
    labels = open_complete(truth)
    _require_truth(labels, truth, semantic, crop)
    if semantic.box.size > LARGEST_VOXELS:
        raise BadInput(
            f"{truth} of {labels.box.size:,} voxels",
            f"a search holds at most {LARGEST_VOXELS:,} voxels in memory",
            "it makes instances of the whole part some hundred times",
            "Choose a part of it: --crop z0:z1,y0:y1,x0:x1, with the truth cropped alike.",
        )
    size = float_vec3(recorded(run)["voxel_size_nm"])
    maps = [to_uint8(volume.read(volume.box), str(volume)) for volume in (semantic, boundary)]
    return LabelledPart(maps[0], maps[1], labels.read(labels.box), size)


def _map(address: str, crop: str | None) -> Volume:
    """The labelled part of a map, which may itself be a part of a stored array; only what is read must be whole."""
    volume = open_volume(address)
    if crop is not None:
        volume = _part(volume, crop)
    require_complete_array(volume, address)
    return volume


def _part(volume: Volume, crop: str) -> Volume:
    spans = parse(f"{volume}[{crop.strip(' []')}]").crop or ()
    start = vec3(first or 0 for first, _ in spans)
    stop = vec3(length if last is None else last for (_, last), length in zip(spans, volume.shape, strict=True))
    box = Box(start, stop)
    if box.is_empty or not volume.box.contains(box):
        raise BadInput(
            f"--crop {crop}",
            "it must lie inside the volume of the run and hold a voxel",
            f"that is {volume.box}",
            f"The nearest legal crop is {str(box.clipped(volume.box)).strip('[]')}.",
        )
    return volume.cropped(box)


def maps_of(run: RunDirectory) -> list[str]:
    """The addresses of a run's maps; of instances from maps, those that were given."""
    settings = recorded(run)["settings"]
    return [str(settings.get(name, run.array(name))) for name in ("semantic", "boundary")]


def _require_truth(labels: Volume, truth: str, semantic: Volume, crop: str | None) -> None:
    if np.dtype(labels.dtype).kind not in "ui":
        raise BadInput(
            f"{truth} of dtype {labels.dtype}",
            "the truth holds instance ids, whole numbers",
            "a mask does not tell which voxels belong together",
        )
    if labels.shape != semantic.shape:
        spans = ",".join(f"0:{length}" for length in labels.shape)
        part = "the run's volume" if crop is None else f"--crop {crop}"
        raise BadInput(
            f"{truth} of {labels.shape}",
            f"it must have the shape of {part}, {semantic.shape}",
            "they are compared voxel by voxel",
            f"Say which part of the run's volume it labels, for example --crop {spans}, or crop the truth: "
            "PATH[z0:z1,y0:y1,x0:x1].",
        )


def require_objects(search: Search, truth: str) -> None:
    """Refuse a labelled part without an instance, or with negative ids."""
    if search.labelled.truth.min(initial=0) < 0:
        raise BadInput(truth, "ids are 0 for the background and positive for instances", "it holds negative values")
    if not search.objects:
        raise BadInput(
            truth,
            "the labelled part must hold at least one instance",
            "without one every setting that finds nothing is perfect",
            "Choose another part with --crop.",
        )
