"""Which instances are shown, where they are found, and how they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluation import Contingency
from pipeline.evaluation.examples import Example, chosen_examples, located_examples
from pipeline.evaluation.sheet import LONGEST, View, drawn_sheet, example_view, png, title
from pipeline.geometry import Box, Vec3
from pipeline.grid import BlockGrid
from pipeline.pictures.outlines import outlines
from pipeline.store.formats import ome_zarr
from pipeline.store.volume import Volume, open_volume

SHAPE: Vec3 = (12, 20, 24)
ANISOTROPIC = (40.0, 10.0, 10.0)
HUGE = 2**60 + 1


def stored(folder: Path, name: str, array: NDArray[Any]) -> Volume:
    ome_zarr.create(str(folder / name), array.shape, array.shape, (4, 10, 12), str(array.dtype), ANISOTROPIC)
    volume = open_volume(str(folder / name))
    volume.write(volume.box, array)
    return volume


def planted() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A merge of truth 1 and 2 (by HUGE), a split of truth 3 (into 6 and 7), a perfect 4, a missed 5, a false 9."""
    prediction, truth = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, np.uint64)
    truth[2:6, 2:8, 2:6], truth[2:6, 2:8, 6:9], prediction[2:6, 2:8, 2:9] = 1, 2, HUGE
    truth[4:10, 11:18, 3:9], prediction[4:7, 11:18, 3:9], prediction[7:10, 11:18, 3:9] = 3, 6, 7
    truth[2:5, 2:7, 14:18] = prediction[2:5, 2:7, 14:18] = 4
    truth[7:9, 2:5, 14:18] = 5
    prediction[7:9, 12:15, 15:20] = 9
    return prediction, truth


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[Volume, Volume]:
    prediction, truth = planted()
    return stored(tmp_path, "p", prediction), stored(tmp_path, "t", truth)


def by_group(examples: list[Example]) -> dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    found: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for one in examples:
        found.setdefault(one.group, []).append((one.predictions, one.truths))
    return found


def views_of(volumes: tuple[Volume, Volume], block: Vec3, raw: Volume | None = None) -> list[View]:
    prediction, truth = (volume.read(volume.box) for volume in volumes)
    examples = chosen_examples(Contingency.of(prediction, truth))
    grid = BlockGrid(SHAPE, block)
    tables = [(b.number, Contingency.of(prediction[b.core.slices()], truth[b.core.slices()])) for b in grid]
    extents = located_examples(examples, tables, grid, *volumes)
    return [
        example_view(one, place, (*volumes, raw), ANISOTROPIC) for one, place in zip(examples, extents, strict=True)
    ]


def test_the_planted_errors_are_the_ones_that_are_shown() -> None:
    groups = by_group(chosen_examples(Contingency.of(*planted())))
    assert groups["false merges"] == [((HUGE,), (1, 2))]
    assert groups["false splits"] == [((6, 7), (3,))]
    assert groups["best"][0] == ((4,), (4,))
    assert groups["worst"][:2] == [((9,), ()), ((), (5,))]  # 30 false voxels, 24 missed ones


def test_a_touch_is_neither_a_merge_nor_a_split() -> None:
    table = Contingency.of(np.repeat([1, 1, 0], [10, 4, 6]), np.repeat([1, 2, 2], [10, 4, 6]))
    assert {"false merges", "false splits"}.isdisjoint(by_group(chosen_examples(table)))


def test_empty_volumes_have_no_examples_and_an_empty_sheet() -> None:
    assert chosen_examples(Contingency.merged(())) == []
    assert png(drawn_sheet([], None)).startswith(b"\x89PNG")


@pytest.mark.parametrize("block", [(4, 10, 12), (5, 7, 24), (1, 20, 5)])
def test_examples_are_found_in_blocks_where_they_lie_in_the_whole(volumes: tuple[Volume, Volume], block: Vec3) -> None:
    whole, parts = views_of(volumes, SHAPE), views_of(volumes, block)
    for one, other in zip(whole, parts, strict=True):
        assert one.example == other.example
        for a, b in zip(one.planes, other.planes, strict=True):
            assert (a.axis, a.at) == (b.axis, b.at)
            np.testing.assert_array_equal(a.truth, b.truth)
            np.testing.assert_array_equal(a.prediction, b.prediction)


def test_a_plane_shows_both_parts_of_a_merge_where_one_can(volumes: tuple[Volume, Volume]) -> None:
    (merge,) = (one for one in views_of(volumes, SHAPE) if one.example.group == "false merges")
    for plane in merge.planes[:2]:  # the two lie side by side in x: xy and xz cut both
        assert {1, 2} <= set(np.unique(plane.truth).tolist())
        assert HUGE in plane.prediction


def test_only_blocks_that_hold_an_example_are_read(volumes: tuple[Volume, Volume]) -> None:
    prediction, truth = planted()
    grid = BlockGrid(SHAPE, (4, 10, 12))
    tables = [(b.number, Contingency.of(prediction[b.core.slices()], truth[b.core.slices()])) for b in grid]
    read: list[Box] = []

    class Watched:
        def read(self, box: Box) -> NDArray[Any]:
            read.append(box)
            return volumes[0].read(box)

    (perfect,) = (one for one in chosen_examples(Contingency.of(prediction, truth)) if one.truths == (4,))
    (place,) = located_examples([perfect], tables, grid, Watched(), volumes[1])  # type: ignore[arg-type]
    assert place.box == Box((2, 2, 14), (5, 7, 18))
    assert [str(box) for box in read] == ["[0:4,0:10,12:24]", "[4:8,0:10,12:24]"]


def test_of_planes_that_show_as_much_the_middle_one_is_taken(tmp_path: Path) -> None:
    box = np.zeros(SHAPE, np.uint8)
    box[2:9, 5:10, 4:15] = 1
    volume = stored(tmp_path, "box", box)
    table = Contingency.of(box, box)
    (place,) = located_examples(chosen_examples(table), [(0, table)], BlockGrid(SHAPE, SHAPE), volume, volume)
    assert place.centre == (5, 7, 9)


def test_outlines_run_between_pixels_of_different_labels() -> None:
    labels = np.zeros((3, 4), np.uint64)
    labels[1, 1:3] = [HUGE, HUGE - 1]
    found = {tuple(map(tuple, segment)) for segment in outlines(labels).astype(int).tolist()}
    top, bottom = {((1, 1), (1, 2)), ((1, 2), (1, 3))}, {((2, 1), (2, 2)), ((2, 2), (2, 3))}
    assert found == top | bottom | {((1, 1), (2, 1)), ((1, 2), (2, 2)), ((1, 3), (2, 3))}


def test_a_panel_has_the_proportions_of_the_tissue_and_a_scale_in_nm(volumes: tuple[Volume, Volume]) -> None:
    views = [one for one in views_of(volumes, SHAPE) if one.example.group == "best"][:1]
    (xy, xz, yz) = drawn_sheet(views, ANISOTROPIC).axes
    for axes, plane, step in ((xy, 0, (10, 10)), (xz, 1, (40, 10)), (yz, 2, (40, 10))):
        rows, columns = views[0].planes[plane].truth.shape
        assert axes.images[0].get_extent() == [0, columns * step[1], rows * step[0], 0]
        assert axes.get_aspect() == 1
        assert any(text.get_text().endswith(" nm") for text in axes.texts)


def test_without_a_voxel_size_the_scale_is_in_voxels(volumes: tuple[Volume, Volume]) -> None:
    figure = drawn_sheet(views_of(volumes, SHAPE)[:1], None)
    assert any(text.get_text().endswith(" voxels") for text in figure.axes[0].texts)


def test_the_image_is_drawn_where_there_is_one(volumes: tuple[Volume, Volume], tmp_path: Path) -> None:
    grey = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
    views = views_of(volumes, SHAPE, stored(tmp_path, "raw", grey))
    picture = drawn_sheet(views[:1], ANISOTROPIC).axes[0].images[0].get_array()
    assert picture is not None and len(np.unique(picture)) > 3
    without = drawn_sheet(views_of(volumes, SHAPE)[:1], ANISOTROPIC).axes[0].images[0].get_array()
    assert without is not None and len(np.unique(without)) <= 3


def test_a_title_names_the_ids_whole_and_the_iou() -> None:
    assert title(Example("best", (HUGE,), (3,), 0.91234)) == f"IoU 0.912, truth 3, prediction {HUGE}"
    assert title(Example("worst", (), (3,), 0.0)) == "truth 3: missed"
    assert title(Example("worst", (4,), (), 0.0)) == "prediction 4: touches no truth that counts"
    assert title(Example("false merges", (HUGE,), (1, 2), 0.5)) == f"prediction {HUGE} merges truth 1, 2"
    assert title(Example("false splits", (6, 7), (3,), 0.5)) == "truth 3 split into 6, 7"


def test_pictures_of_a_long_instance_are_cut_around_the_planes(tmp_path: Path) -> None:
    line = np.zeros((1, 4, 3 * LONGEST), np.uint8)
    line[0, 1:3, 20:-20] = 1
    volume = stored(tmp_path, "line", line)
    (example, *_) = chosen_examples(Contingency.of(line, line))
    grid = BlockGrid(volume.shape, volume.shape)
    (place,) = located_examples([example], [(0, Contingency.of(line, line))], grid, volume, volume)
    shapes = [plane.truth.shape for plane in example_view(example, place, (volume, volume, None), None).planes]
    assert max(map(max, shapes)) <= LONGEST
