from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.model.normalisation import Normalisation, Statistics, histogram


def test_the_two_percentiles_become_zero_and_one() -> None:
    raw = np.arange(1, 201, dtype=np.uint8)
    rule = Normalisation(low=5.0, high=95.0, clip=(-9.0, 9.0))
    offset, scale = rule.statistics(histogram(raw))
    assert (offset, offset + scale) == (10.0, 190.0)
    np.testing.assert_allclose(rule.apply(np.array([10, 100, 190], np.uint8), (offset, scale)), [0.0, 0.5, 1.0])


def test_the_result_is_clipped_at_both_ends() -> None:
    result = Normalisation(clip=(-0.5, 1.5)).apply(np.array([0, 255], np.uint8), Statistics(100.0, 10.0))
    assert result.tolist() == [-0.5, 1.5]
    assert result.dtype == np.float32


def test_black_padding_does_not_count() -> None:
    raw = np.array([50, 60, 70, 80], np.uint8)
    padded = np.concatenate([raw, np.zeros(1000, np.uint8)])
    rule = Normalisation()
    assert rule.statistics(histogram(raw)) == rule.statistics(histogram(padded))


@pytest.mark.parametrize("raw", [np.zeros(8, np.uint8), np.full(8, 93, np.uint8), np.zeros(0, np.uint8)])
def test_a_volume_of_one_grey_level_or_none_gives_finite_numbers(raw: np.ndarray) -> None:
    rule = Normalisation()
    assert np.isfinite(rule.apply(raw, rule.statistics(histogram(raw)))).all()


@given(st.lists(st.integers(1, 255), min_size=1, max_size=60), st.integers(1, 59))
def test_the_histograms_of_the_blocks_add_up_to_that_of_the_volume(grey: list[int], cut: int) -> None:
    raw = np.array(grey, np.uint8)
    parts = histogram(raw[:cut]) + histogram(raw[cut:])
    np.testing.assert_array_equal(parts, histogram(raw))


@given(st.lists(st.integers(1, 255), min_size=1, max_size=60))
def test_the_offset_is_a_grey_level_that_occurs(grey: list[int]) -> None:
    assert Normalisation().statistics(histogram(np.array(grey, np.uint8))).offset in grey


@pytest.mark.parametrize(
    "wrong",
    [{"low": 60.0, "high": 40.0}, {"clip": (1.0, 0.0)}, {"kind": "zscore"}, {"mean": 1}, {"levels": (9.0, 9.0)}],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Normalisation(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [[3, 4, 5], [0, 255], [200, 201]])
def test_fixed_levels_do_not_depend_on_the_volume(raw: list[int]) -> None:
    rule = Normalisation(kind="fixed")
    statistics = rule.statistics(histogram(np.array(raw, np.uint8)))
    assert statistics == (0.0, 255.0)
    grey = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(rule.apply(grey, statistics), grey / np.float32(255))


@pytest.mark.parametrize(
    "rule", [Normalisation(low=2.0, high=97.5, clip=(-1.0, 2.0)), Normalisation(kind="fixed", levels=(10.0, 99.5))]
)
def test_the_rule_survives_a_json_round_trip(rule: Normalisation) -> None:
    assert Normalisation.model_validate_json(rule.model_dump_json()) == rule
