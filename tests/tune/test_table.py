"""Rows of the instance table by a condition, the same from one file and from parts, without loading it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from command_line import Teramito

from pipeline.errors import BadInput
from pipeline.instances import database
from pipeline.instances.query import InstanceTable

ROWS = 500
STATEMENTS = [
    "SELECT * FROM read_text('{0}/secret.txt')",
    "SELECT * FROM glob('{0}/*')",
    "COPY (SELECT 1) TO '{0}/out.csv'",
    "ATTACH '{0}/x.db'",
    "SET threads = 9",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_paths = ['{0}/secret.txt']",
    "PRAGMA memory_limit = '9GB'",
    "INSTALL httpfs",
    "LOAD httpfs",
]
BIG = 2**53  # the next whole number is no float64


def _table() -> pa.Table:
    random = np.random.default_rng(5)
    voxels = random.integers(1, 60, ROWS).astype(np.uint64)
    probability = random.random(ROWS)
    probability[7] = np.nan
    return pa.table(
        {
            "id": np.arange(BIG, BIG + ROWS, dtype=np.uint64),
            "voxels": voxels,
            "volume_um3": voxels * 0.01,
            "z0_nm": np.sort(random.random(ROWS)) * 100 - 50,
            "mean_semantic_probability": pa.array(probability, mask=np.arange(ROWS) == 9),
            "touches_border": random.random(ROWS) < 0.3,
        }
    )


@pytest.fixture(scope="module", params=["a file", "parts"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a table."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text('{"settings": {}}')
    path, table = folder / "instances.parquet", _table()
    if request.param == "a file":
        parquet.write_table(table, path, row_group_size=64)
        return folder
    path.mkdir()
    for number, start in enumerate(range(0, ROWS, 90)):
        parquet.write_table(table.slice(start, 90), path / f"part-{number:05d}.parquet")
    return folder


def _number(row: dict[str, Any]) -> Any:
    return row["mean_semantic_probability"]


def _is_nan(value: float | None) -> bool:
    return value is not None and np.isnan(value)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return _table().to_pylist()  # type: ignore[no-any-return]


def _found(run: Path, **given: Any) -> list[dict[str, Any]]:
    batches = InstanceTable.open(run / "instances.parquet").rows(**given)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("volume_um3 > 0.1 and touches_border == false", lambda r: r["volume_um3"] > 0.1 and not r["touches_border"]),
        ("touches_border", lambda r: r["touches_border"]),
        ("not touches_border and voxels>=58", lambda r: not r["touches_border"] and r["voxels"] >= 58),
        ("voxels < 5 or (voxels > 55 and z0_nm<0)", lambda r: r["voxels"] < 5 or (r["voxels"] > 55 and r["z0_nm"] < 0)),
        ("10 <= voxels < 20", lambda r: 10 <= r["voxels"] < 20),
        ("voxels != 10.0", lambda r: r["voxels"] != 10),
        ("voxels > 10.5", lambda r: r["voxels"] > 10.5),
        ("-10 < z0_nm", lambda r: r["z0_nm"] > -10),
        ("z0_nm > -1e1", lambda r: r["z0_nm"] > -10),
        (f"id == {BIG + 1}", lambda r: r["id"] == BIG + 1),
        (f"id > {BIG + 490}", lambda r: r["id"] > BIG + 490),
        ("z0_nm > voxels", lambda r: r["z0_nm"] > r["voxels"]),
        ("touches_border != True", lambda r: not r["touches_border"]),
        ("mean_semantic_probability > 0.99", lambda r: (r["mean_semantic_probability"] or 0) > 0.99),
        ("voxels > 1000", lambda r: False),
        ("voxels <= 10.5", lambda r: r["voxels"] <= 10.5),
        ("voxels < 10.5", lambda r: r["voxels"] < 10.5),
        ("10.5 <= voxels", lambda r: r["voxels"] >= 10.5),
        ("voxels == 10.5", lambda r: False),
        ("not voxels == 10.5", lambda r: True),
        ("voxels != 10.5", lambda r: True),
        ("voxels > -1", lambda r: True),
        ("voxels >= -0.5 and -1 != voxels", lambda r: True),
        ("voxels < -1 or voxels == -1 or voxels <= -0.5", lambda r: False),
        ("id < 1e30", lambda r: True),
        ("id < 1e999 and id != 1e999", lambda r: True),
        ("id > 1e30 or id == 1e30 or id >= 1e999", lambda r: False),
        ("not id < 1e30", lambda r: False),
        (f"id < {'9' * 400}", lambda r: True),
        (f"id < -{'9' * 400} or id > {'9' * 400}", lambda r: False),
        (f"z0_nm < {'9' * 400} and z0_nm > -{'9' * 400}", lambda r: True),
        (f"volume_um3 < {BIG + 1}", lambda r: True),
        ("id == 18446744073709551616", lambda r: False),
        ("id <= 18446744073709551615", lambda r: True),
        (f"{BIG + 3} <= id < {BIG + 6}", lambda r: BIG + 3 <= r["id"] < BIG + 6),
        (f"id == {BIG + 1}.0", lambda r: r["id"] == BIG + 1),
        (f"id > {BIG + 490}.5", lambda r: r["id"] > BIG + 490),
        (f"id % 2 == 0 and id + 1 == {BIG + 3}", lambda r: r["id"] == BIG + 2),
        ("voxels = 3", lambda r: r["voxels"] == 3),
        ("voxels <> 3", lambda r: r["voxels"] != 3),
        ("voxels in (1, 2)", lambda r: r["voxels"] in (1, 2)),
        ("voxels not in (1, 2.5)", lambda r: r["voxels"] != 1),
        ("voxels between 3 and 5.5", lambda r: 3 <= r["voxels"] <= 5),
        ("voxels - 30 > 0x10", lambda r: r["voxels"] > 46),
        ("sqrt(voxels) < 3 and abs(z0_nm) > 20", lambda r: r["voxels"] < 9 and abs(r["z0_nm"]) > 20),
        ("voxels * 0.01 >= volume_um3", lambda r: True),
        ("(voxels > 30) == touches_border", lambda r: (r["voxels"] > 30) == r["touches_border"]),
        ('"voxels" > 30 AND NOT touches_border -- both', lambda r: r["voxels"] > 30 and not r["touches_border"]),
        ("mean_semantic_probability is null", lambda r: r["mean_semantic_probability"] is None),
        ("isnan(mean_semantic_probability)", lambda r: _is_nan(r["mean_semantic_probability"])),
        ("mean_semantic_probability <= 2", lambda r: (_number(r) or 3) <= 2),
        ("not mean_semantic_probability <= 0.5", lambda r: _number(r) is not None and not _number(r) <= 0.5),
        ("mean_semantic_probability != 2", lambda r: _number(r) is not None),
        ("mean_semantic_probability != mean_semantic_probability", lambda r: _is_nan(_number(r))),
        ("mean_semantic_probability == mean_semantic_probability", lambda r: _number(r) == (_number(r) or 0)),
        ("(" * 90 + "voxels > 30" + ")" * 90, lambda r: r["voxels"] > 30),
        (" or ".join(f"voxels == {number}" for number in range(1, 500, 2)), lambda r: r["voxels"] % 2 == 1),
    ],
)
def test_a_condition_keeps_the_rows_it_says(where: str, wanted: Any, run: Path, rows: list[dict[str, Any]]) -> None:
    expected = [row["id"] for row in rows if wanted(row)]
    assert [row["id"] for row in _found(run, where=where, columns=["id"])] == expected
    assert InstanceTable.open(run / "instances.parquet").count(where) == len(expected)


@pytest.mark.parametrize("limit", [None, 1, 30, ROWS, 10 * ROWS])
@pytest.mark.parametrize("sort", ["voxels", "-voxels", "-id", "touches_border"])
def test_the_first_n_of_a_sort_equal_those_of_a_sort_of_all(
    sort: str, limit: int | None, run: Path, rows: list[dict[str, Any]]
) -> None:
    sign, key = (-1, sort[1:]) if sort.startswith("-") else (1, sort)
    expected = sorted((row for row in rows if row["z0_nm"] < 40), key=lambda row: (sign * row[key], row["id"]))
    found = _found(run, where="z0_nm < 40", sort=sort, limit=limit, columns=["voxels", "id"])
    assert found == [{"voxels": row["voxels"], "id": row["id"]} for row in expected[:limit]]


def test_nulls_and_nan_come_last_in_either_order(run: Path) -> None:
    for sort in ("mean_semantic_probability", "-mean_semantic_probability"):
        found = [row["id"] - BIG for row in _found(run, sort=sort)]
        assert sorted(found[-2:]) == [7, 9]


def _held(folder: Path) -> int:
    """Bytes of the files in a folder, some of which may go while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_a_sort_of_more_than_the_memory_goes_through_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(3).permutation(3_000_000).astype(np.uint64)
    table, temporary = pa.table({"id": np.arange(len(values), dtype=np.uint64), "voxels": values}), tmp_path / "spill"
    parquet.write_table(table, tmp_path / "instances.parquet", row_group_size=2**15)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setitem(database.CONFIG, "memory_limit", "24MB")
    seen, at = 0, 0
    for batch in InstanceTable.open(tmp_path / "instances.parquet").rows(sort="-voxels"):
        assert (batch["voxels"].to_numpy() == len(values) - 1 - np.arange(at, at + batch.num_rows)).all()
        at, seen = at + batch.num_rows, max(seen, _held(temporary))
    assert at == len(values)
    assert seen > 2**20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instances.parquet", "spill"]
    assert not list(temporary.iterdir())


def test_an_interrupt_ends_a_question_that_is_not_answered_yet() -> None:
    ended = threading.Event()

    class Slow:
        def sql(self, question: str, params: Any) -> Any:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert ended.wait(60)
            raise duckdb.InterruptException("interrupted")

        def interrupt(self) -> None:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            database.answer(Slow(), "SELECT 1", [], 1)  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, before)


def test_too_little_memory_is_one_error_and_not_a_torn_table(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database.CONFIG, "memory_limit", "1KB")
    with pytest.raises(BadInput, match=r"must be answered in .* of memory") as refused:
        _found(run, sort="voxels")
    assert "Delete" not in str(refused.value)


def test_rows_without_a_sort_stop_at_the_limit_in_the_order_of_ids(run: Path) -> None:
    assert [row["id"] for row in _found(run, limit=100, columns=["id"])] == list(range(BIG, BIG + 100))


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("volum_um3 > 1", ("there is no such column", "Did you mean volume_um3?", "Columns: id, voxels")),
        ("voxels >", ("it must be a condition",)),
        ("voxels", ("voxels is uint64, not true or false",)),
        ("3", ("it must compare columns",)),
        ("1 < 2", ("a comparison names a column",)),
        ("voxels > true", ("voxels is compared with a number",)),
        ("touches_border == 1", ("touches_border is compared with true or false",)),
        (f"touches_border == {'9' * 5000}", ("touches_border is compared with true or false", "this is a number")),
        ("9" * 5000, ("it must compare columns",)),
        (f"voxels == 0x{'f' * 5000}", ("it must be a condition",)),
        ("not " * 2000 + "touches_border", ()),
        ("voxels == 'a'", ("values are columns, numbers, true and false",)),
        ("__import__('os').system('x') == 0", ("values are columns, numbers", "this is none: __import__")),
        ("(lambda: 1)()", ("it must be a condition",)),
        ("voxels > 1 if touches_border else z0_nm > 1", ("it must be a condition",)),
        ("touches_border && voxels > 3", ("it must be a condition",)),
        ("(" * 300 + "voxels > 1" + ")" * 300, ("it must be a condition",)),
        ("voxels > 1\x00", ("it must be a condition",)),
        ("", ("it must be a condition",)),
        ("true", ("it must compare columns",)),
        ("t.voxels > 1", ("there is no such column",)),
        ("voxels + touches_border > 1", ("values are columns, numbers", "this is none: voxels + touches_border")),
        ("voxels is distinct from 3", ("comparisons are < <= > >= == !=",)),
        ("voxels > 1e99999999999999999999", ("values are columns, numbers", "this is none: 1e999")),
        ("voxels > ?", ("or has parameters",)),
        ("voxels > $x", ("or has parameters",)),
        ("sqrt(z0_nm, 2) > 1", ("values are columns, numbers",)),
        ("sum(voxels) > 1", ("values are columns, numbers",)),
        ("sum(voxels) over () > 1", ("values are columns, numbers",)),
        ("abs(distinct z0_nm) > 1", ("values are columns, numbers",)),
        ("case when touches_border then voxels end > 1", ("values are columns, numbers",)),
        ("cast(voxels as int) > 1", ("values are columns, numbers",)),
        ("random() > 0.5", ("values are columns, numbers",)),
        ("getenv('HOME') == 1", ("values are columns, numbers",)),
        ("columns(*) > 1", ("values are columns, numbers",)),
        ("voxels > (select 1)", ("values are columns, numbers",)),
        ("exists(select * from read_text('/etc/passwd'))", ("values are columns, numbers",)),
        ("voxels in (select voxels from 'other.parquet')", ("values are columns, numbers",)),
        ("voxels > 1) or (voxels < 3), (true", ("it must be a condition", "more than one expression")),
        ("voxels > 1) from read_text('/etc/passwd') where (true", ("more than one expression",)),
        ("voxels > 1) union select (true", ("more than one expression",)),
        ("voxels > 1) order by (1", ("more than one expression",)),
        ("voxels > 1); copy (select 1) to 'out.csv'; select (1", ("it must be a condition",)),
        ("voxels > 1; attach 'x.db'", ("it must be a condition",)),
        ("voxels > 1) -- ", ("it must be a condition",)),
        ("voxels > 1 /*", ("it must be a condition",)),
        ("voxels > 1 \udcff", ("it must be a condition",)),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused_with_the_columns(
    where: str, parts: tuple[str, ...], run: Path
) -> None:
    with pytest.raises(BadInput) as refused:
        _found(run, where=where)
    for part in (*parts, "Columns: id, voxels, volume_um3"):
        assert part in str(refused.value), refused.value


def test_a_condition_without_a_value_for_a_row_is_refused(run: Path) -> None:
    with pytest.raises(BadInput, match="it must have a value for every row"):
        _found(run, where="id * id * id > 1")


def test_ids_up_to_the_highest_are_exact(tmp_path: Path, teramito: Teramito) -> None:
    ids = np.arange(2**64 - 2000, 2**64, dtype=np.uint64)
    path = tmp_path / "copy.parquet"
    parquet.write_table(pa.table({"id": ids[::-1], "flag": ids % np.uint64(2) == 0}), path, row_group_size=64)
    highest = 2**64 - 1
    found = teramito("table", str(path), "--where", f"id > {highest - 3}", "--sort", "id", "--json").json
    assert [row["id"] for row in found] == [highest - 2, highest - 1, highest]
    falling = teramito("table", str(path), "--sort", "-id", "--limit", "2", "--columns", "id", "--csv").out.split()
    assert falling == ["id", str(highest), str(highest - 1)]
    for where in (f"id == {highest}", f"id >= {highest}.0", f"id + 1 == {highest + 1}", f"{highest - 1} < id"):
        assert [row["id"] for row in teramito("table", str(path), "--where", where, "--json").json] == [highest]


@pytest.mark.parametrize("where", ["x > 1", "x <= 1", "not x > 1", "not x <= 1", "x != 1", "x == 1", "not x == 1"])
def test_statistics_of_parts_hide_no_nan(where: str, tmp_path: Path) -> None:
    x = np.ones(1000)
    x[::100] = np.nan
    parquet.write_table(pa.table({"id": np.arange(1000, dtype=np.uint64), "x": x}), tmp_path / "t.parquet")
    compared, word = where.removeprefix("not ").split(maxsplit=1)[1], where.startswith("not ")
    sign, _ = compared.split()
    kept = {">": x > 1, "<=": x <= 1, "!=": x != 1, "==": x == 1}[sign] ^ word
    table = InstanceTable.open(tmp_path / "t.parquet")
    assert [i for b in table.rows(where, columns=["id"]) for i in b["id"].to_pylist()] == np.flatnonzero(kept).tolist()
    assert table.count(where) == kept.sum()


def test_a_path_is_read_as_it_stands(tmp_path: Path) -> None:
    for folder, value in (("a=3/x*y [1]?", 1), ("a=3/xzy 1b", 2)):
        path = tmp_path / folder / "instances.parquet"
        path.mkdir(parents=True)
        parquet.write_table(pa.table({"id": np.array([value], np.uint64)}), path / "part-00000.parquet")
    table = InstanceTable.open(tmp_path / "a=3/../a=3/x*y [1]?/instances.parquet")
    assert [batch.to_pylist() for batch in table.rows()] == [[{"id": 1}]]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_database_of_a_question_can_do_nothing_else(statement: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    table = InstanceTable.open(run / "instances.parquet")
    refused = pytest.raises((duckdb.PermissionException, duckdb.InvalidInputException))
    with database.locked_database(table.files, tmp_path / "spill") as opened, refused:
        opened.execute(statement.format(tmp_path)).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


def test_a_question_needs_no_network_and_no_home(run: Path, tmp_path: Path) -> None:
    code = "import sys; from flows.cli import main; sys.exit(main())"
    given = ["table", str(run), "--where", "10 <= voxels < 20", "--sort", "-voxels", "--json"]
    alone = ["unshare", "-rn"] if subprocess.run(["unshare", "-rn", "true"], check=False).returncode == 0 else []
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [*alone, sys.executable, "-c", code, *given]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert said.returncode == 0, said.stderr
    assert {row["voxels"] for row in json.loads(said.stdout)} <= set(range(10, 20))
    assert not (tmp_path / ".duckdb").exists()


def test_the_command_prints_lines_json_and_csv(run: Path, rows: list[dict[str, Any]], teramito: Teramito) -> None:
    given = ["table", str(run), "--where", "voxels > 55", "--sort", "-voxels", "--columns", "id,voxels,touches_border"]
    expected = sorted((row for row in rows if row["voxels"] > 55), key=lambda row: (-row["voxels"], row["id"]))[:4]
    wanted = [{name: row[name] for name in ("id", "voxels", "touches_border")} for row in expected]
    said = teramito(*given, "--limit", "4")
    assert said.code == 0, said.err
    first, *lines = said.out.splitlines()
    assert first.split() == ["id", "voxels", "touches_border"]
    assert [line.split()[0] for line in lines] == [str(row["id"]) for row in wanted]
    assert f"{sum(row['voxels'] > 55 for row in rows)} of 500 instances match" in said.err
    assert "not verified yet" in said.err
    assert json.loads(teramito(*given, "--limit", "4", "--json").out) == wanted
    read = list(csv.DictReader(io.StringIO(teramito(*given, "--limit", "4", "--csv").out)))
    assert read == [{name: str(value).lower() for name, value in row.items()} for row in wanted]
    assert len(teramito("table", str(run)).out.splitlines()) == 1 + 20
    assert len(json.loads(teramito("table", str(run), "--limit", "0", "--json").out)) == ROWS


def test_what_is_not_a_number_is_null_in_json(run: Path, teramito: Teramito) -> None:
    said = teramito("table", str(run), "--where", f"{BIG + 6} < id < {BIG + 10}", "--json")
    assert [row["mean_semantic_probability"] is None for row in said.json] == [True, False, True]
    assert teramito("table", str(run), "--where", "voxels > 1000", "--json").json == []


def test_the_command_refuses_what_it_cannot_do(run: Path, tmp_path: Path, teramito: Teramito) -> None:
    teramito("table", str(run), "--sort", "size").refuses("--sort size: there is no such column", "Columns: id")
    teramito("table", str(run), "--columns", "id,voxel").refuses("--columns voxel", "Did you mean voxels?")
    teramito("table", str(run), "--columns", "id,voxels,id").refuses("--columns 'id,voxels,id'", "id stands there more")
    for none in ("", " ,"):
        teramito("table", str(run), "--columns", none).refuses("--columns ''", "it must name a column", "Columns: id")
    assert teramito("table", str(run), "--columns", "size", "--csv").out == ""
    teramito("table", str(run), "--json", "--csv").refuses("give one of them")
    teramito("table", str(tmp_path)).refuses("this is no run directory")
    (tmp_path / "run.json").write_text('{"settings": {}}')
    teramito("table", str(tmp_path)).refuses("must have an instance table", f"teramito status {tmp_path}")


def test_the_table_itself_may_be_named_in_a_run_or_anywhere(run: Path, tmp_path: Path, teramito: Teramito) -> None:
    given = ["--where", "voxels > 55", "--json"]
    of_the_run = teramito("table", str(run), *given)
    named = teramito("table", str(run / "instances.parquet"), *given)
    assert (named.json, named.err) == (of_the_run.json, of_the_run.err)
    assert "not verified yet" in named.err
    (tmp_path / "copy.parquet").symlink_to(run / "instances.parquet")
    copied = teramito("table", str(tmp_path / "copy.parquet"), *given)
    assert (copied.json, copied.err) == (of_the_run.json, "")
    (tmp_path / "empty.parquet").mkdir()
    teramito("table", str(tmp_path / "empty.parquet")).refuses("it holds no columns")


def test_the_directory_of_a_comparison_is_no_run(tmp_path: Path, teramito: Teramito) -> None:
    (tmp_path / "run.json").write_text('{"settings": {"prediction": {}, "truth": {}}}')
    for given in (["table", str(tmp_path)], ["tune", str(tmp_path), "truth"]):
        teramito(*given).refuses(f"{tmp_path}: this is the directory of a comparison", "the --output of a run")


@pytest.mark.parametrize("keep", [0, 30, -40])
def test_a_torn_table_is_one_error(keep: int, tmp_path: Path, teramito: Teramito) -> None:
    (tmp_path / "run.json").write_text('{"settings": {}}')
    path = tmp_path / "instances.parquet"
    parquet.write_table(_table(), path)
    path.write_bytes(path.read_bytes()[:keep])
    teramito("table", str(tmp_path)).refuses(str(path), "the instance table must be readable", "Delete it")


def test_a_run_without_instances_has_a_table_without_rows(tmp_path: Path, teramito: Teramito) -> None:
    from tiny_run import write_volume

    maps = [write_volume(tmp_path / name, np.zeros((4, 16, 16), np.uint8)) for name in ("semantic", "boundary")]
    assert teramito("instances", *maps, str(tmp_path / "out")).code == 0
    said = teramito("table", str(tmp_path / "out"), "--where", "voxels > 3")
    assert said.code == 0, said.err
    assert said.out.split()[:2] == ["id", "voxels"]
    assert "0 of 0 instances match" in said.err
