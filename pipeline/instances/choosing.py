"""grow, bridge, select: provisional instances grown, joined across bad slices, and those not wanted dropped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.directory import counts_of
from pipeline.engine.step import Step
from pipeline.image.maps import Maps
from pipeline.instances.ids import Fragments, write_final, write_offsets
from pipeline.instances.joining import collars_of
from pipeline.instances.labelling import Labelled, Labelling
from pipeline.instances.ops.select import kept
from pipeline.instances.stages.bridge import BridgeStage, bridged_pairs
from pipeline.instances.stages.grow import GrowStage
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.identity import digest, source_fingerprint


def grow_steps(work: Labelling, seeds: Labelled, maps: Maps) -> tuple[list[Step], Labelled]:
    """The step grow: labels through the mask and without holes; each block's table names the instance of each."""
    assert isinstance(seeds.ids, Path)
    grow = GrowStage(
        labels=seeds.labels,
        semantic=maps.semantic,
        offsets=seeds.offsets,
        table=seeds.ids,
        upstream=seeds.fingerprint,
        grown=StoredLabels(work.directory.block_tables("grow"), work.grid),
        grid=work.grid,
        extent=work.grid.extent,
        plan=work.settings,
        tissue=work.tissue,
        tissue_fingerprint="" if work.tissue is None else source_fingerprint(work.tissue.volume),
        collars=collars_of(work),
    )
    offsets = work.directory.table("offsets", grow.fingerprint)

    def finish() -> None:
        write_offsets(offsets, counts_of(work.directory, grow))

    step = Step("grow", (grow,), tables=(offsets,), finish=finish)
    return [step], Labelled(grow.grown, grow, offsets, grow.grown.tables, seeds.highest, grow.fingerprint)


def select_steps(work: Labelling, found: Labelled) -> tuple[list[Step], Labelled]:
    """The steps bridge, where asked for, and select: the final id of every label, in a table."""
    bridge = BridgeStage(
        provisional=found.provisional,
        tables=work.directory.block_tables("bridge"),
        gap=work.settings.join_gap,
        upstream=found.fingerprint,
    )
    final = digest({"source": found.fingerprint, "chosen": _chosen_by(work)})
    table = work.directory.table("final", final)
    select = Step("select", (), tables=(table,), finish=partial(_select, work, found, bridge, table))
    steps = [Step("bridge", (bridge,)), select] if work.settings.join_gap else [select]
    return steps, Labelled(found.labels, found.stage, found.offsets, table, table, final)


def _chosen_by(work: Labelling) -> dict[str, Any]:
    """What decides which provisional instances stay and which are one."""
    names = ("minimum_voxels", "drop_border", "tissue_fraction", "join_gap", "join_overlap")
    return {name: getattr(work.settings, name) for name in names}


def _select(work: Labelling, found: Labelled, bridge: BridgeStage, table: Path) -> None:
    """Write the final ids: pieces joined, whole instances kept or dropped."""
    directory, settings, extent = work.directory, work.settings, work.grid.extent
    fragments = Fragments(found.provisional, found.counts(directory), found.highest)
    pairs = None
    if settings.join_gap and not table.exists():
        pairs = np.concatenate(list(bridged_pairs(bridge, counts_of(directory, bridge), settings.join_overlap)))
    stays = partial(kept, extent=extent, plan=settings, tissue=work.tissue is not None)
    write_final(table, fragments, stays, pairs, extent)
