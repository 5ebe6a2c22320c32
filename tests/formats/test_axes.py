"""Axes are found by their names, in any order; an array whose axes are not z, y and x is refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.formats.axes import found_axes
from pipeline.store.formats.units import nanometres

VOLUME = np.arange(4 * 5 * 6).reshape(4, 5, 6)
BOX = Box((1, 2, 0), (3, 5, 4))


def stored(order: str) -> np.ndarray:
    """The volume with its axes in this order; every letter but z, y, x is an axis of length 1."""
    array = VOLUME.transpose(["zyx".index(name) for name in order if name in "zyx"])
    return array.reshape([VOLUME.shape["zyx".index(name)] if name in "zyx" else 1 for name in order])


@pytest.mark.parametrize("order", [*map("".join, permutations("zyx")), "ctxyz", "xyzc", "yctxz", "tzcyxs"])
def test_any_order_of_named_axes_is_read_and_written_in_place(order: str) -> None:
    array = stored(order).copy()
    axes = found_axes("volume", array.shape, [name.upper() for name in order])
    assert axes.zyx(array.shape) == VOLUME.shape
    np.testing.assert_array_equal(axes.read(array, BOX), VOLUME[BOX.slices()])
    axes.write(array, BOX, -VOLUME[BOX.slices()])
    changed = VOLUME.copy()
    changed[BOX.slices()] *= -1
    np.testing.assert_array_equal(axes.read(array, Box.of_shape(VOLUME.shape)), changed)


@pytest.mark.parametrize(
    "shape", [(4, 5, 6), (1, 4, 5, 6), (4, 5, 6, 1), (4, 1, 5, 6), (1, 1, 4, 5, 6), (1, 4, 5, 1, 6, 1)]
)
def test_axes_without_names_are_z_y_x_in_order(shape: tuple[int, ...]) -> None:
    array = VOLUME.reshape(shape)
    for names in (None, [None] * len(shape), [f"dim_{i}" for i in range(len(shape))]):
        axes = found_axes("volume", shape, names)
        np.testing.assert_array_equal(axes.read(array, BOX), VOLUME[BOX.slices()])


def test_a_volume_of_one_slice_keeps_its_z() -> None:
    assert found_axes("volume", (1, 1, 5, 6)).zyx((1, 1, 5, 6)) == (1, 5, 6)
    assert found_axes("volume", (1, 5, 6), ["z", "y", "x"]).places == (0, 1, 2)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((2, 4, 5, 6), "czyx"),
        ((4, 5, 6), "cyx"),
        ((4, 5, 6), "zyy"),
        ((5, 6), "yx"),
        ((4, 5, 6), ["z", "y", ""]),
        ((2, 4, 5, 6), None),
        ((5, 6), None),
    ],
)
def test_anything_else_is_refused_by_its_shape_and_names(shape: tuple[int, ...], names: object) -> None:
    with pytest.raises(BadInput, match=r"z, y and x once each") as refused:
        found_axes("volume", shape, names)  # type: ignore[arg-type]
    assert str(tuple(shape)) in str(refused.value)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("nm", 1), ("NM", 1), ("nanometers", 1), ("µm", 1e3), ("μm", 1e3), ("\\u00B5m", 1e3), ("um", 1e3),
        ("microns", 1e3), ("micrometre", 1e3), ("Å", 0.1), ("\u212b", 0.1), ("angstroms", 0.1),
        ("m", 1e9), ("inch", 2.54e7),
        ("pm", 1e-3), ("millimeter", 1e6), ("pixel", None), ("", None), (None, None), ("M", None), ("second", None),
    ],
)  # fmt: skip
def test_units_of_length(unit: object, expected: float | None) -> None:
    assert nanometres(unit) == (None if expected is None else pytest.approx(expected))
