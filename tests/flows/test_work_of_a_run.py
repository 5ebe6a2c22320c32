"""The share of a run that is done, over stages of different weight, also when one comes up that nobody knew of."""

from __future__ import annotations

from flows.tracking.artifacts import Work


def test_stages_count_by_their_weight_and_earlier_ones_are_done() -> None:
    work = Work({"label": 3.0, "stitch": 1.0, "relabel": 4.0})
    work.enter("stitch")
    work.note("stitch", 0.5)
    assert work.percent == 100 * 3.5 / 8


def test_a_level_of_super_blocks_that_was_not_known_at_the_start_costs_nothing() -> None:
    work = Work({"label": 3.0, "relabel": 1.0})
    work.enter("label")
    work.note("label", 1.0)
    work.enter("merge-0")
    work.resumed("merge-0", 0.5)
    work.note("merge-0", 1.0)
    assert work.percent == 75.0


def test_a_step_of_nothing_but_such_levels_shows_no_percentage_yet() -> None:
    work = Work({})
    work.enter("merge-0")
    work.note("merge-0", 0.5)
    assert work.percent == 0.0
    assert work.eta_s is None
