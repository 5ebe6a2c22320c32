"""What a restoration changed, for people: a markdown page with its pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.denoise.summary import headline, in_words, percent

# What the bits of the damage map mean, to whoever looks at sections.
_KINDS = {
    "missing": "nothing was imaged",
    "residual": "darker or brighter than the slices beside it allow: precipitates, folds, dirt",
    "blur": "less sharp than the slices beside it",
    "intensity": "contrast or brightness unlike the slices beside it",
    "saturated": "clipped to white",
}
_LISTED = 12  # slices named in one line of the table


def restored_page(summary: Mapping[str, Any], sheet: Path | None) -> str:
    """A restoration as markdown.

    Args:
        summary: as ``restoration_summary`` makes it.
        sheet: PNG of examples, which goes into the page itself; None, or no such file, where there are none.
    """
    lines = [
        "# Restoration",
        "",
        f"{headline(summary)}. The input itself is unchanged; the network for mitochondria sees the restored slices.",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {what} | {count} |" for what, count in _counts(summary)),
        "",
        *_kinds(summary["damage_cells"]),
    ]
    if sheet is not None and sheet.exists():
        picture = base64.b64encode(sheet.read_bytes()).decode()
        lines += ["## Before and after", "", f"![Slices before and after](data:image/png;base64,{picture})", ""]
    return "\n".join(lines)


def _counts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the table of counts."""
    yield "Restored by", f"`{summary['restorer']}`"
    yield "Voxels replaced", f"{summary['replaced_voxels']:,} ({percent(summary['share'])} of the volume)"
    yield "Slices with something replaced", f"{summary['slices']:,}"
    yield "Slices replaced as a whole", _slices(summary["whole_slices"], summary["whole_slices_z"])
    yield "Damaged voxels left as imaged: too many bad slices in a row", f"{summary['left_voxels']:,}"
    if summary["slices_left"]:
        yield "Slices with damage left", _slices(summary["slices_left"], summary["slices_left_z"])


def _slices(count: int, numbers: Sequence[int]) -> str:
    """``3 (z 4, 8, 9)``."""
    named = ", ".join(map(str, numbers[:_LISTED]))
    return f"{count:,} (z {named}{', ...' if count > _LISTED else ''})" if count else "0"


def _kinds(cells: Mapping[str, int]) -> list[str]:
    """A table of what was found; nothing where nothing was looked for."""
    if not cells:
        return []
    rows = [f"| {kind} | {_KINDS.get(kind, '')} | {in_words(count, 'cell')} |" for kind, count in cells.items()]
    where = "Found, in cells of the damage map (small squares of one slice; one may count for several kinds):"
    return [where, "", "| kind | what it is | how many |", "|---|---|---:|", *rows, ""]
