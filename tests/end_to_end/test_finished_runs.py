"""A finished run does nothing again, and is found out when something of it goes missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Teramito
from tiny_run import ALL_LAYERS, arguments, run_here, settings

BLOCKS = {"block.shape": [16, 48, 48], **ALL_LAYERS}


@pytest.fixture(scope="module")
def finished(tiny_model: Path, phantom_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_here(settings(phantom_path, folder, tiny_model, BLOCKS))
    return folder


@pytest.fixture
def damaged(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def _times(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock"}


def test_a_finished_run_says_so_and_changes_nothing(
    finished: Path, tiny_model: Path, phantom_path: str, teramito: Teramito
) -> None:
    before = _times(finished)
    said = teramito("run", *arguments(phantom_path, finished, tiny_model, BLOCKS))
    assert said.code == 0
    assert "is finished and verified; nothing to do" in said.out
    assert _times(finished) == before


def test_verify_and_status_of_a_finished_run_change_nothing(finished: Path, teramito: Teramito) -> None:
    before = _times(finished)
    assert "complete: every block of every stage is there" in teramito("verify", str(finished)).out
    assert "complete and verified" in teramito("status", str(finished)).out
    assert _times(finished) == before


def test_verify_works_from_another_folder_than_the_run_was_started_in(
    tiny_model: Path, phantom_path: str, tmp_path: Path, teramito: Teramito, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copytree(phantom_path, tmp_path / "here" / "raw")
    shutil.copytree(tiny_model.parent, tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    given = arguments("raw[0:16,0:48,:]", Path("run"), Path("model/tiny.json"), {"export.layers": ["segmentation"]})
    assert teramito("run", *given).code == 0
    monkeypatch.chdir(tmp_path)
    assert teramito("verify", "here/run").code == 0
    assert "nothing to do" in teramito("run", *_moved(given, tmp_path / "here")).out


def _moved(given: list[str], folder: Path) -> list[str]:
    there = {name: str(folder / name) for name in ("raw[0:16,0:48,:]", "run", "model/tiny.json")}
    return [there.get(value, value) for value in given]


def test_verify_finds_a_ledger_line_that_is_gone(damaged: Path, teramito: Teramito) -> None:
    ledger = damaged / "ledgers" / "grow.ledger"
    lines = ledger.read_text().splitlines(keepends=True)
    (gone,) = [line for line in lines if line.startswith("5 ")]
    ledger.write_text("".join(line for line in lines if line != gone))
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "grow: 1 of 12 blocks missing, the first [16:32,0:48,48:96]" in said.err


def test_verify_finds_a_ledger_that_is_gone(damaged: Path, teramito: Teramito) -> None:
    (damaged / "ledgers" / "relabel.ledger").unlink()
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "relabel: not started, 12 blocks missing" in said.err


def test_verify_finds_a_chunk_of_the_segmentation_that_is_gone(damaged: Path, teramito: Teramito) -> None:
    chunks = sorted(path for path in (damaged / "arrays" / "segmentation" / "0" / "c").rglob("*") if path.is_file())
    chunks[3].unlink()
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "does not hold the instances it was given; its chunks are damaged or gone" in said.err


def test_verify_finds_a_torn_chunk_of_the_segmentation(damaged: Path, teramito: Teramito) -> None:
    chunks = sorted(path for path in (damaged / "arrays" / "segmentation" / "0" / "c").rglob("*") if path.is_file())
    chunks[3].write_bytes(chunks[3].read_bytes()[:20])
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "the run is not complete" in said.err
    assert "must be readable" in said.err


@pytest.mark.parametrize("layer", ["segmentation", "raw", "semantic"])
def test_verify_finds_any_chunk_of_the_export_that_is_gone(layer: str, damaged: Path, teramito: Teramito) -> None:
    folders = sorted(path for path in (damaged / "precomputed" / layer).iterdir() if path.is_dir())
    for folder in folders:
        for chunk in sorted(folder.iterdir())[:: 3 if layer == "segmentation" else 9]:
            kept = chunk.read_bytes()
            chunk.unlink()
            said = teramito("verify", str(damaged))
            assert said.code == 1
            assert "missing" in said.err
            chunk.write_bytes(kept)
    assert teramito("verify", str(damaged)).code == 0


def test_verify_finds_a_torn_chunk_of_the_export(damaged: Path, teramito: Teramito) -> None:
    folder = damaged / "precomputed" / "segmentation" / "10_10_10"
    chunk = min(folder.iterdir())
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "the run is not complete" in said.err


@pytest.mark.parametrize("keep", [0, 100, None])
def test_verify_finds_an_instance_table_that_is_torn_or_gone(
    keep: int | None, damaged: Path, teramito: Teramito
) -> None:
    part = damaged / "instances.parquet" / "part-00000.parquet"
    content = part.read_bytes()
    part.unlink()
    if keep is not None:
        part.write_bytes(content[:keep])
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "the run is not complete" in said.err
    assert "instances.parquet" in said.err


def test_verify_tells_json_readers_the_same(damaged: Path, teramito: Teramito) -> None:
    (damaged / "ledgers" / "label.ledger").unlink()
    said = teramito("verify", str(damaged), "--json")
    assert said.code == 1
    assert said.json["complete"] is False
    assert said.json["problems"] == ["label: not started, 12 blocks missing"]


def test_what_verify_found_wanting_is_not_called_finished_and_is_mended_as_it_says(
    damaged: Path, tiny_model: Path, phantom_path: str, teramito: Teramito
) -> None:
    chunk = next(path for path in (damaged / "arrays" / "segmentation" / "0" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    chunk.unlink()
    assert teramito("verify", str(damaged)).code == 1
    assert "not complete" in teramito("status", str(damaged)).out
    (damaged / "ledgers" / "relabel.ledger").unlink()
    assert teramito("run", *arguments(phantom_path, damaged, tiny_model, BLOCKS)).code == 0
    assert chunk.read_bytes() == whole
    assert "complete and verified" in teramito("status", str(damaged)).out


def test_a_run_that_is_there_is_not_refused_for_the_space_it_has_taken_itself(
    finished: Path,
    tiny_model: Path,
    phantom_path: str,
    teramito: Teramito,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    full = shutil.disk_usage(finished)._replace(free=0)
    monkeypatch.setattr("pipeline.engine.directory.shutil.disk_usage", lambda _path: full)
    assert "nothing to do" in teramito("run", *arguments(phantom_path, finished, tiny_model, BLOCKS)).out
    fresh = teramito("run", *arguments(phantom_path, tmp_path / "new", tiny_model, BLOCKS))
    assert fresh.code == 1
    assert "the disk must hold the run" in fresh.err


def test_a_torn_instance_table_is_made_again_once_deleted(
    damaged: Path, tiny_model: Path, phantom_path: str, teramito: Teramito
) -> None:
    part = damaged / "instances.parquet" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    said = teramito("verify", str(damaged))
    assert said.code == 1
    assert "or the damaged table itself" in said.err
    shutil.rmtree(part.parent)
    assert teramito("run", *arguments(phantom_path, damaged, tiny_model, BLOCKS)).code == 0
    assert part.read_bytes() == whole
