"""The small arrays beside the big ones are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadInput
from pipeline.store.files import write_whole
from pipeline.store.tables import BlockTables, open_table, write_table


@pytest.mark.parametrize("number", [0, 999, 1000, 1_234_567])
def test_the_tables_of_a_block_come_back_as_they_were(tmp_path: Path, number: int) -> None:
    tables = BlockTables(tmp_path / "rows")
    arrays = {
        "pairs": np.arange(10, dtype=np.uint64).reshape(5, 2),
        "empty": np.zeros((0, 7), np.int64),
        "face": np.ones((3, 4), np.uint32, order="F"),
    }
    tables.write(number, arrays)
    found = tables.read(number)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)


def test_writing_a_block_again_replaces_it_and_leaves_no_other_file(tmp_path: Path) -> None:
    tables = BlockTables(tmp_path)
    tables.write(5, {"a": np.zeros(3)})
    tables.write(5, {"b": np.ones(2)})
    assert list(tables.read(5)) == ["b"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_no_folder_holds_more_than_a_thousand_blocks(tmp_path: Path) -> None:
    tables = BlockTables(tmp_path)
    for number in (0, 999, 1000, 1999, 2000):
        tables.write(number, {"a": np.zeros(1)})
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("keep", [None, 0, 10, 0.5, -3])
def test_a_torn_table_of_a_block_is_named_with_the_stage_to_run_again(tmp_path: Path, keep: float | None) -> None:
    tables = BlockTables(tmp_path / "tables" / "label-collars")
    tables.write(3, {"rows": np.arange(1000)})
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    if keep is None:
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    ledger = tmp_path / "ledgers" / "label.ledger"
    with pytest.raises(BadInput, match=rf"^{file}: .* whole.* delete {ledger} \(or in it the lines of block 3 alone\)"):
        tables.read(3)


def test_a_torn_table_of_a_stage_with_a_dash_in_its_name_is_of_that_stage(tmp_path: Path) -> None:
    ledger = tmp_path / "ledgers" / "merge-1.ledger"
    ledger.parent.mkdir()
    ledger.touch()
    with pytest.raises(BadInput, match=f"delete {ledger} "):
        BlockTables(tmp_path / "tables" / "merge-1").read(0)


@pytest.mark.parametrize("keep", [None, 0, 20, 130])
def test_a_torn_table_of_a_run_is_named_and_may_be_deleted(tmp_path: Path, keep: int | None) -> None:
    path = tmp_path / "offsets-0123.npy"
    if keep is not None:
        write_table(path, np.arange(10))
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=rf"^{path}: .* whole.* Delete it and run the same command"):
        open_table(path)


def test_objects_are_never_pickled_into_a_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_table(tmp_path / "t.npy", np.array([{}], object))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_table_is_mapped_and_read_by_slices(tmp_path: Path, size: int) -> None:
    table = np.arange(size, dtype=np.uint64)
    write_table(tmp_path / "run" / "table.npy", table)
    mapped = open_table(tmp_path / "run" / "table.npy")
    np.testing.assert_array_equal(mapped, table)
    np.testing.assert_array_equal(mapped[size // 2 :], table[size // 2 :])


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8", "f8"])
def test_opening_a_table_parses_no_python(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.arange(70, dtype=dtype)
    write_table(tmp_path / "table.npy", table)

    def parse(*_: object, **__: object) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("ast.literal_eval", parse)
    opened = open_table(tmp_path / "table.npy")
    assert opened.dtype == table.dtype and opened.tolist() == table.tolist()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "t", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "t", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert (tmp_path / "t").read_bytes() == b"old"
