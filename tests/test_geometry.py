"""Triples against numpy: arithmetic axis by axis, and a plain tuple for everything else."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from pipeline.geometry import Box, Triple, Vec3, vec3
from pipeline.grid import BlockGrid

WHOLE = st.integers(-(2**62), 2**62)
SMALL = st.integers(-300, 300)
POSITIVE = st.integers(1, 400)


def triples(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Triple]:
    return st.tuples(numbers, numbers, numbers)


OPERANDS = triples(SMALL) | triples(SMALL).map(vec3) | SMALL
DIVISORS = triples(POSITIVE) | triples(POSITIVE).map(vec3) | POSITIVE

ARITHMETIC: list[tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = [
    (lambda v, w: v + w, lambda a, b: a + b),
    (lambda v, w: w + v, lambda a, b: b + a),
    (lambda v, w: v - w, lambda a, b: a - b),
    (lambda v, w: v * w, lambda a, b: a * b),
    (lambda v, w: w * v, lambda a, b: b * a),
    (lambda v, w: v.min(w), np.minimum),
    (lambda v, w: v.max(w), np.maximum),
]


@given(triples(SMALL), OPERANDS)
@pytest.mark.parametrize(("ours", "of_numpy"), ARITHMETIC)
def test_arithmetic_is_that_of_numpy_axis_by_axis(ours: Any, of_numpy: Any, values: Triple, other: Any) -> None:
    found = ours(vec3(values), other)
    assert type(found) is Vec3
    assert found == tuple(of_numpy(np.array(values), np.array(other)))
    assert all(type(value) is int for value in found)


@given(triples(SMALL), DIVISORS)
def test_division_rounds_down_or_up_as_numpy_does(values: Triple, other: Any) -> None:
    array, by = np.array(values), np.array(other)
    assert vec3(values) // other == tuple(array // by)
    assert vec3(values).ceil_div(other) == tuple(-(-array // by)) == tuple(np.ceil(array / by).astype(int))
    assert type(vec3(values) // other) is type(vec3(values).ceil_div(other)) is Vec3
    assert vec3(values).is_multiple_of(other) == (array % by == 0).all()
    assert (vec3(values).ceil_div(other) * other).is_multiple_of(other)


@given(triples(st.integers(-2, 2)), triples(st.integers(-2, 2)) | st.integers(-2, 2))
def test_a_comparison_of_all_axes_is_no_comparison_of_tuples(values: Triple, other: Any) -> None:
    array, by = np.array(values), np.array(other)
    assert vec3(values).all_below(other) == (array < by).all()
    assert vec3(values).all_at_most(other) == (array <= by).all()


@given(triples(WHOLE), triples(WHOLE))
def test_a_triple_is_the_plain_tuple_of_its_values(values: Triple, other: Triple) -> None:
    ours = vec3(values)
    assert (ours, hash(ours), repr(ours), f"{ours}") == (values, hash(values), repr(values), f"{values}")
    assert ((ours < vec3(other)), (ours == other)) == (values < other, values == other)
    assert {values: 1}[ours] == 1
    assert json.dumps(ours) == json.dumps(values)
    assert (*ours, *other) == (*values, *other) == values + other
    assert ours[1:] == values[1:]
    assert ours[::-1] == values[::-1]


@given(triples(WHOLE))
def test_a_triple_stays_one_through_pickles_and_copies(values: Triple) -> None:
    ours = vec3(values)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(ours, protocol))
        assert (type(back), back) == (Vec3, values)
    assert type(copy.deepcopy(ours)) is type(copy.copy(ours)) is Vec3
    assert copy.deepcopy(ours) == values


@dataclass(frozen=True)
class Holder:
    box: Box
    shape: Vec3


def test_dataclasses_give_and_replace_triples() -> None:
    held = Holder(Box((1, 2, 3), (4, 5, 6)), vec3((7, 8, 9)))
    plain = asdict(held)
    assert plain == {"box": {"start": (1, 2, 3), "stop": (4, 5, 6)}, "shape": (7, 8, 9)}
    assert json.loads(json.dumps(plain)) == {"box": {"start": [1, 2, 3], "stop": [4, 5, 6]}, "shape": [7, 8, 9]}
    assert type(replace(held.box, start=(0, 0, 0)).start) is Vec3


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    shape: tuple[int, int, int]


def test_strict_settings_take_a_triple_and_hold_a_plain_one() -> None:
    settings = Strict(shape=vec3((1, 2, 3)))
    assert type(settings.shape) is tuple
    assert settings.model_dump_json() == '{"shape":[1,2,3]}'


@pytest.mark.parametrize("wrong", [(), (1,), (1, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize(
    "name", ["__add__", "__radd__", "__sub__", "__mul__", "__floordiv__", "ceil_div", "min", "max"]
)
def test_nothing_is_ever_concatenated_or_repeated(name: str, wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="unpack"):
        getattr(vec3((1, 2, 3)), name)(wrong)


@pytest.mark.parametrize("wrong", [2.5, "abc", None, [1, 2, 3]])
def test_other_operands_are_type_errors(wrong: Any) -> None:
    for operation in (lambda v: v + wrong, lambda v: v - wrong, lambda v: v * wrong, lambda v: v // wrong):
        with pytest.raises(TypeError):
            operation(vec3((1, 2, 3)))


@pytest.mark.parametrize("wrong", [(), (1, 2), (1, 2, 3, 4), range(5)])
def test_a_triple_has_three_values(wrong: Any) -> None:
    with pytest.raises(ValueError, match="unpack"):
        vec3(wrong)


def test_numpy_takes_a_triple_for_a_shape_an_index_and_a_row() -> None:
    shape = vec3(np.array([2, 3, 4]))
    array = np.arange(24).reshape(shape)
    assert all(type(value) is int for value in shape)
    assert np.zeros(shape).shape == np.broadcast_to(0, shape).shape == array.shape == shape
    assert array[vec3((1, 2, 3))] == 23
    assert (np.array([1, 1, 1]) + shape).tolist() == (shape + np.array([1, 1, 1])).tolist() == [3, 4, 5]
    assert (shape * np.array([1, 2, 3])).tolist() == [2, 6, 12]


BOXES = st.builds(Box, triples(SMALL), triples(SMALL))


@given(BOXES, BOXES, triples(SMALL))
def test_boxes_are_what_numpy_makes_of_their_corners(box: Box, other: Box, by: Triple) -> None:
    start, stop, low, high = (np.array(corner) for corner in (box.start, box.stop, other.start, other.stop))
    assert box.shape == tuple(np.maximum(stop - start, 0))
    assert box.grown(by) == Box(vec3(start - by), vec3(stop + by))
    assert box.shifted(by) == Box(vec3(start + by), vec3(stop + by))
    assert box.contains(other) == bool((start <= low).all() and (high <= stop).all())
    first = np.minimum(np.maximum(start, low), high)
    assert box.clipped(other) == Box(vec3(first), vec3(np.maximum(first, np.minimum(stop, high))))
    assert box.slices(by) == tuple(slice(a, b) for a, b in zip(start - by, stop - by, strict=True))
    assert str(box) == f"[{','.join(f'{a}:{b}' for a, b in zip(start, stop, strict=True))}]"


def test_boxes_and_grids_of_plain_tuples_are_those_of_triples() -> None:
    assert Box((0, 0, 0), (1, 2, 3)) == Box(vec3((0, 0, 0)), vec3((1, 2, 3))) == Box.of_shape([1, 2, 3])
    assert hash(Box((0, 0, 0), (1, 2, 3))) == hash(Box.of_shape((1, 2, 3)))
    assert repr(Box.of_shape((1, 2, 3))) == "Box(start=(0, 0, 0), stop=(1, 2, 3))"
    grid = BlockGrid((5, 6, 7), (2, 3, 4))
    assert grid == BlockGrid(vec3((5, 6, 7)), vec3((2, 3, 4))) == pickle.loads(pickle.dumps(grid))
    block = grid[5]
    assert {type(value) for value in (grid.extent, grid.block, grid.shape, block.index, block.core.start)} == {Vec3}


@given(
    triples(st.integers(1, 16)), triples(st.integers(3, 12)), triples(st.integers(-5, 20)), triples(st.integers(0, 9))
)
def test_the_blocks_that_cover_a_box_are_those_that_meet_it(
    extent: Triple, block: Triple, start: Triple, size: Triple
) -> None:
    grid, box = BlockGrid(extent, block), Box(start, vec3(start) + size)
    wanted = [each for each in grid if not each.core.clipped(box).is_empty]
    assert list(grid.covering(box)) == wanted
    assert [each.index for each in grid] == list(product(*map(range, grid.shape)))
    for index in product(*(range(-1, n + 1) for n in grid.shape)):
        assert grid.has(index) == all(0 <= i < n for i, n in zip(index, grid.shape, strict=True))
