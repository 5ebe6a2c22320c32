"""The page of a restoration says what was found, replaced and left, and carries its pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from flows.reports.restoration import restored_page

SUMMARY: dict[str, Any] = {
    "restorer": "interpolation-v1",
    "replaced_voxels": 4_086_748,
    "left_voxels": 1,
    "share": 0.2165,
    "slices": 70,
    "whole_slices": 60,
    "whole_slices_z": list(range(50)),
    "slices_left": 1,
    "slices_left_z": [7],
    "damage_cells": {"missing": 1, "blur": 2345, "other": 3},
}


def test_the_page_tells_counts_kinds_and_what_is_left() -> None:
    page = restored_page(SUMMARY, None)
    for line in (
        "| Restored by | `interpolation-v1` |",
        "| Voxels replaced | 4,086,748 (21.6 % of the volume) |",
        "| Slices replaced as a whole | 60 (z 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...) |",
        "| Slices with damage left | 1 (z 7) |",
        "| missing | nothing was imaged | 1 cell |",
        "| blur | less sharp than the slices beside it | 2,345 cells |",
        "| other |  | 3 cells |",
    ):
        assert line in page.splitlines()
    assert "21.6 % of the volume; 1 damaged voxel left as imaged" in page
    assert "data:image" not in page


def test_a_clean_volume_has_no_empty_tables() -> None:
    clean = dict.fromkeys(SUMMARY, 0) | {"restorer": "a", "damage_cells": {}, "whole_slices_z": [], "slices_left_z": []}
    page = restored_page(clean, Path("/nowhere/sheet.png"))
    assert "Nothing replaced; 0 damaged voxels left as imaged" in page
    assert "cells" not in page
    assert "with damage left" not in page
    assert "Before and after" not in page


def test_the_pictures_are_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"a picture")
    page = restored_page(SUMMARY, tmp_path / "sheet.png")
    assert f"(data:image/png;base64,{base64.b64encode(b'a picture').decode()})" in page
