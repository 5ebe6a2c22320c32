"""The ledger: what is in it is done, whatever happened to the driver that wrote it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.engine.ledger import Ledger, parse_line, read_record
from pipeline.engine.stage import BlockResult, failed
from pipeline.errors import RunConflict

SIZE = 40
numbers = st.integers(0, SIZE - 1)
results = st.builds(BlockResult, numbers, st.integers(0, 10**12), error=st.none() | st.text(max_size=20))


def opened(path: Path, size: int = SIZE, fingerprint: str = "f1") -> Ledger:
    """The ledger of the tests."""
    return Ledger(path, "label", fingerprint, size)


def test_a_new_ledger_has_everything_pending(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "label.ledger", 3) as ledger:
        assert list(ledger.pending()) == [0, 1, 2]
        assert (ledger.done_count, ledger.is_complete) == (0, False)


def test_a_stage_without_blocks_is_complete(tmp_path: Path) -> None:
    with opened(tmp_path / "l", 0) as ledger:
        assert ledger.is_complete


def test_counts_seconds_and_failures_survive_reopening(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(BlockResult(3, 12345678901, 0.25, 1.5, 0.125))
        ledger.append(BlockResult(4, 7, 0.75, 0.5, 0.875))
        ledger.append(failed(9, "it broke"))
    with opened(tmp_path / "l") as ledger:
        assert list(ledger.counts[[3, 4, 9]]) == [12345678901, 7, 0]
        assert list(ledger.seconds) == [1.0, 2.0, 1.0]
        assert ledger.failures == {9: "it broke"}
        assert ledger.done_count == 2
        assert 9 in set(ledger.pending())


ODD_PATHS = ["/a/v", "/a\tb\nc/v", "/u\u2028v \x85", '/"q"/{v}!', "/bad \udcff name", "s3://bucket/v"]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_what_a_block_could_not_read_survives_reopening_on_one_line(tmp_path: Path, path: str) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(failed(1, "BadInput: it\tis torn", path))
        ledger.append(failed(2, "it broke"))
        assert ledger.unreadable == {1: path}
    assert (tmp_path / "l").read_bytes().count(b"\n") == 3
    with opened(tmp_path / "l") as ledger:
        assert ledger.failures == {1: "BadInput: it is torn", 2: "it broke"}
        assert ledger.unreadable == {1: path}
        ledger.append(failed(1, "it broke otherwise"))
        assert ledger.unreadable == {}


def test_a_block_that_is_done_later_could_read_everything(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(failed(1, "it is torn", "/a/v"))
        ledger.append(BlockResult(1, 5))
        ledger.append(failed(1, "it is torn", "/a/v"))
        assert ledger.unreadable == {}
    with opened(tmp_path / "l") as ledger:
        assert (ledger.failures, ledger.unreadable) == ({}, {})


@pytest.mark.parametrize("rest", ["it broke", "it\tbroke", 'it\t{"unreadable"', 'it\t{"other": 1}', "it\t[1]", "a\t1"])
def test_a_failed_line_without_a_path_names_none(tmp_path: Path, rest: str) -> None:
    opened(tmp_path / "l").close()
    with (tmp_path / "l").open("a") as file:
        file.write(f"1 ! {rest}\n")
    with opened(tmp_path / "l") as ledger:
        assert (ledger.failures, ledger.unreadable) == ({1: rest}, {})


def test_a_failed_block_that_is_done_later_is_done(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(failed(2, "it broke"))
        ledger.append(BlockResult(2, 5))
        assert ledger.failures == {}
    with opened(tmp_path / "l") as ledger:
        assert (bool(ledger.done[2]), ledger.failures) == (True, {})


def test_a_done_block_stays_done_when_a_second_try_fails(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(BlockResult(2, 5))
        ledger.append(failed(2, "it broke"))
        assert (bool(ledger.done[2]), int(ledger.counts[2]), ledger.failures) == (True, 5, {})


def test_a_torn_last_line_is_dropped_and_the_next_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with opened(path) as ledger:
        ledger.append(BlockResult(1, 11))
        ledger.append(BlockResult(12, 345))
    os.truncate(path, path.stat().st_size - 3)
    with opened(path) as ledger:
        assert (bool(ledger.done[1]), bool(ledger.done[12])) == (True, False)
        ledger.append(BlockResult(13, 3))
    with opened(path) as ledger:
        assert [n for n in range(SIZE) if ledger.done[n]] == [1, 13]


@pytest.mark.parametrize(
    ("fingerprint", "size", "named"), [("f2", SIZE, "another fingerprint"), ("f1", 7, "another blocks")]
)
def test_the_ledger_of_another_configuration_is_refused_and_left_alone(
    tmp_path: Path, fingerprint: str, size: int, named: str
) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(BlockResult(1, 11))
    before = (tmp_path / "l").read_bytes()
    with pytest.raises(RunConflict, match=f"{named} of stage label .* Use a new output directory"):
        opened(tmp_path / "l", size, fingerprint)
    assert (tmp_path / "l").read_bytes() == before


@pytest.mark.parametrize(
    "error", ["two\nlines", "a\r\nb", "u\u2028v", "x\x0cy\x85z", "caf\u00e9.zarr", "bad \udcff name"]
)
def test_any_error_text_stays_one_line(tmp_path: Path, error: str) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(failed(1, error))
        ledger.append(BlockResult(2, 22))
    with opened(tmp_path / "l") as ledger:
        assert set(ledger.failures) == {1}
        assert int(ledger.counts[2]) == 22


@pytest.mark.parametrize("read_at_a_time", [1, 64, 2**22])
def test_what_is_replayed_does_not_depend_on_how_much_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_at_a_time: int
) -> None:
    monkeypatch.setattr("pipeline.engine.ledger.REPLAY_BYTES", read_at_a_time)
    with opened(tmp_path / "l") as ledger:
        for number in range(0, SIZE, 2):
            ledger.append(failed(number, "it ! broke"))
        for number in range(0, SIZE, 4):
            ledger.append(BlockResult(number, number, 0.001))
        ledger.append(BlockResult(0, 77, 0.001))
        ledger.append(failed(4, "too late"))
    with opened(tmp_path / "l") as ledger:
        assert [n for n in range(SIZE) if ledger.done[n]] == list(range(0, SIZE, 4))
        assert (int(ledger.counts[0]), int(ledger.counts[4]), ledger.done_count) == (77, 4, SIZE // 4)
        assert ledger.failures == dict.fromkeys(range(2, SIZE, 4), "it ! broke")
        assert list(ledger.pending()) == [n for n in range(SIZE) if n % 4]
        assert round(float(ledger.seconds[0]), 9) == 0.011


def test_a_line_that_no_ledger_wrote_is_not_taken_for_a_block(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        ledger.append(BlockResult(1, 11))
    with (tmp_path / "l").open("a") as file:
        file.write("2 22\n")
    with pytest.raises(RunConflict, match="line 3: no ledger wrote this line, '2 22'"):
        opened(tmp_path / "l")


@pytest.mark.parametrize("read_at_a_time", [1, 2**22])
@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage",
        b"garbage!",
        b"\x00\x00\xff\xff",
        b"\xff ! torn",
        b"2 22",
        b"2 22 0",
        b"2 22 0 0 0 0",
        b"2 22 0 0 x",
        b"-1 22 0 0 0",
        b"-1 ! it broke",
        b"%d 22 0 0 0" % SIZE,
        b"%d ! it broke" % SIZE,
        b"9" * 30 + b" 22 0 0 0",
        b"2 " + b"9" * 30 + b" 0 0 0",
    ],
)
@pytest.mark.parametrize("after", [b"", b"3 33 0 0 0\n"])
def test_a_damaged_line_is_named_with_its_number_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, garbage: bytes, after: bytes, read_at_a_time: int
) -> None:
    monkeypatch.setattr("pipeline.engine.ledger.REPLAY_BYTES", read_at_a_time)
    path = tmp_path / "l"
    with opened(path) as ledger:
        for number in range(2):
            ledger.append(BlockResult(number, 11))
    with path.open("ab") as file:
        file.write(garbage + b"\n" + after)
    before = path.read_bytes()
    for read in (opened, read_record):
        with pytest.raises(RunConflict, match=rf"{path}, line 4: .*Delete that line and run the same command"):
            read(path)
    assert path.read_bytes() == before
    path.write_bytes(before.replace(garbage + b"\n" + after, after))
    with opened(path) as ledger:
        assert ledger.done_count == (3 if after else 2)


@pytest.mark.parametrize("first", ["garbage", "[1, 2]", '{"stage": "label"}', '{"blocks": 5}', "\x00\x00"])
def test_a_damaged_first_line_is_named_with_the_remedy(tmp_path: Path, first: str) -> None:
    path = tmp_path / "l"
    path.write_text(first + "\n1 11 0 0 0\n")
    for read in (opened, read_record):
        with pytest.raises(RunConflict, match=rf"{path}, line 1: .*Delete the ledger and run the same command"):
            read(path)


def test_done_blocks_are_counted_once_however_often_they_are_done(tmp_path: Path) -> None:
    with opened(tmp_path / "l", 2) as ledger:
        for number in (0, 0, 1):
            assert not ledger.is_complete
            ledger.append(BlockResult(number, 5))
        assert (ledger.done_count, ledger.is_complete) == (2, True)


def test_the_record_of_a_ledger_is_read_while_a_run_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text('{"stage": "label", "fing')
    assert read_record(path) is None
    path.unlink()
    with opened(path) as ledger:
        ledger.append(BlockResult(3, 7, 0.5))
        ledger.append(failed(5, "it broke"))
        with path.open("ab") as file:
            file.write(b"12 34")
        found = read_record(path)
    assert found is not None
    header, record = found
    assert (header["stage"], record.size, record.done_count, int(record.counts[3])) == ("label", SIZE, 1, 7)
    assert (record.failures, float(record.seconds[0])) == ({5: "it broke"}, 0.5)
    assert path.read_bytes().endswith(b"12 34")


def test_a_line_reads_back_as_its_result() -> None:
    assert parse_line("7 42 1500 20 3") == BlockResult(7, 42, 1.5, 0.02, 0.003)
    assert parse_line("7 ! ValueError: a ! b") == failed(7, "ValueError: a ! b")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(results, max_size=6), st.integers(0, 400)), min_size=1, max_size=5))
def test_no_kill_at_any_byte_marks_a_block_done_whose_line_was_not_whole(
    tmp_path: Path, sessions: list[tuple[list[BlockResult], int]]
) -> None:
    path = tmp_path / "l"
    path.unlink(missing_ok=True)
    for appended, lost_bytes in sessions:
        with opened(path) as ledger:
            for result in appended:
                ledger.append(result)
        os.truncate(path, max(0, path.stat().st_size - lost_bytes))
        kept = path.read_bytes()
        whole = kept[: kept.rfind(b"\n") + 1].decode().split("\n")[1:-1]
        expected = [parse_line(line) for line in whole]
        with opened(path) as ledger:
            assert {n for n in range(SIZE) if ledger.done[n]} == {r.number for r in expected if r.error is None}
            last = {r.number: r.count for r in expected if r.error is None}
            assert {number: int(ledger.counts[number]) for number in last} == last
