"""The network over what it is shown: one step, two maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.image.frame import Frame
from pipeline.image.maps import Maps
from pipeline.image.seen import Seen
from pipeline.model.ensemble import Member, one_or_several, scale_warnings
from pipeline.predict.op import PredictOp
from pipeline.predict.stage import PredictStage


def predict_part(frame: Frame, members: Sequence[Member], op: PredictOp, device: str, seen: Seen) -> tuple[Part, Maps]:
    """The step that predicts, and the maps it writes.

    Args:
        frame: of the run.
        members: the networks that are averaged; the first one leads.
        op: what they do on this volume.
        device: ``auto``, ``cpu`` or ``cuda``.
        seen: what they are shown.
    """
    semantic, boundary = (
        stored_volume(frame.directory.array(name), frame.grid, "uint8", frame.source, frame.chunks)
        for name in ("semantic", "boundary")
    )
    first, *others = members
    stage = PredictStage(
        source=seen.volume,
        upstream=seen.fingerprint,
        semantic=semantic,
        boundary=boundary,
        grid=frame.grid,
        op=op,
        model=first.model,
        spec=first.spec,
        grey=seen.grey,
        statistics=first.statistics,
        device=device,
        others=tuple(others),
        levels=seen.levels,
    )
    arrays = (semantic, boundary)
    step = Step("predict", (stage,), arrays=arrays, prepare=partial(create_arrays, arrays, frame.grid, stage.name))
    hashes = one_or_several([member.spec.sha256 for member in members])
    names = one_or_several([member.spec.name for member in members])
    part = Part(
        steps=(step,),
        layers={
            "semantic": Exportable("image", semantic, stage.fingerprint),
            "boundary": Exportable("image", boundary, stage.fingerprint),
        },
        facts={"model": names, "model_sha256": hashes, "tta": op.tta},
        identities={"model_sha256": hashes},
        warnings=tuple(scale_warnings(op.scale, frame.voxel_size_nm, [member.spec for member in members])),
    )
    return part, Maps(semantic, boundary, stage.fingerprint)
