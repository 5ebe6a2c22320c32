"""Bars on a terminal, as a person sees them."""

from __future__ import annotations

import io
import logging
import re
import sys
import time

import pytest

from flows.terminal.bars import Bars
from flows.terminal.pace import Pace
from pipeline.engine.step import Step
from pipeline.grid import BlockGrid

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class _Named:
    """As much of a stage as a bar asks for."""

    def __init__(self, name: str, blocks: int) -> None:
        self.name, self.grid, self.fingerprint = name, BlockGrid((blocks, 1, 1), (1, 1, 1)), "f"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return CODES.sub("", self.getvalue().replace("\r", "\n"))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return _Terminal()


def export() -> Step:
    """A layer of three mips."""
    stages = tuple(_Named(f"export-raw-mip{mip}", blocks) for mip, blocks in enumerate((8, 2, 1)))
    return Step("export", stages)  # type: ignore[arg-type]


def shown(bars: Bars, stage: str, blocks: int, done: int) -> None:
    bars._show(Pace(stage, blocks, 0, time.monotonic() - 1, done, stage.partition("-")[0], 1e6))
    bars._shown.refresh()


def test_a_bar_is_as_long_as_all_stages_of_its_step_from_the_start(terminal: _Terminal) -> None:
    with Bars(terminal, [export()]) as bars:
        shown(bars, "export-raw-mip0", 8, 4)
        shown(bars, "export-raw-mip1", 2, 1)
    assert "4 of 11 blocks" in terminal.text and "9 of 11 blocks" in terminal.text
    assert "of 8 blocks" not in terminal.text


def test_a_bar_of_a_resumed_step_counts_the_stages_that_were_finished_before(terminal: _Terminal) -> None:
    with Bars(terminal, [export()]) as bars:
        shown(bars, "export-raw-mip2", 1, 1)
    assert "11 of 11 blocks" in terminal.text


def test_the_time_of_a_finished_step_stands_still(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    with Bars(terminal) as bars:
        bars._show(Pace("label", 8, 0, now - 65, 8, "label", 1e6))
        monkeypatch.setattr(time, "monotonic", lambda: now + 500)
        bars._shown.refresh()
    assert "8 of 8 blocks" in terminal.text and terminal.text.rstrip().endswith("1 min 5 s")


def test_a_stage_that_was_not_known_at_the_start_makes_the_bar_longer(terminal: _Terminal) -> None:
    with Bars(terminal, [Step("merge", ())]) as bars:
        shown(bars, "merge-0", 4, 4)
        shown(bars, "merge-1", 1, 1)
    assert "4 of 4 blocks" in terminal.text and "5 of 5 blocks" in terminal.text


@pytest.mark.parametrize("columns", [30, 59, 80, 120])
def test_no_bar_is_wider_than_the_terminal(columns: int, terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with Bars(terminal, [export()]) as bars:
        shown(bars, "export-raw-mip0", 8, 4)
    assert max(map(len, terminal.text.splitlines())) <= columns
    assert "4 of 11" in terminal.text and "of 100" not in terminal.text


def test_what_is_logged_or_warned_meanwhile_is_seen(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = logging.StreamHandler()  # made before the bars, as a library makes its own when it is imported
    log = logging.Logger("made-early")
    log.addHandler(handler)
    monkeypatch.setitem(logging.root.manager.loggerDict, log.name, log)
    with Bars(terminal, [export()]) as bars:
        shown(bars, "label", 8, 8)
        shown(bars, "export-raw-mip0", 8, 4)
        assert handler.stream is sys.stderr is not terminal
        log.warning("a worker was lost")
        print("a dubious voxel", file=sys.stderr)
        shown(bars, "export-raw-mip0", 8, 5)
    assert "a worker was lost" in terminal.text.splitlines() and "a dubious voxel" in terminal.text.splitlines()
    assert handler.stream is sys.stderr is terminal


def test_the_terminal_is_given_back_when_the_run_is_interrupted(terminal: _Terminal) -> None:
    def interrupted() -> None:
        with Bars(terminal, [export()]) as bars:
            shown(bars, "export-raw-mip0", 8, 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")
