"""A DuckDB that reads the files it is given and does nothing else.

It lives in memory, loads no extension, reaches no network, and its settings are locked before the first question. The
Parquet reader and the JSON functions are built in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import duckdb
import pyarrow as pa

THREADS = 2
MEMORY = "512MB"  # of DuckDB's own; a sort of more than that goes to the temporary folder
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": THREADS,
    "memory_limit": MEMORY,
    "allow_community_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a name in a question is no variable of Python
}


@contextmanager
def locked_database(
    files: Sequence[str] = (), spill: Path | None = None, depth: int = 1000
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for some questions, closed afterwards.

    Args:
        files: absolute paths of the only files it may read; a question names them as ``glob.escape`` gives them.
        spill: the folder where a sort may put what does not fit in memory; None: nowhere.
        depth: expressions nested deeper are refused.
    """
    database = duckdb.connect(":memory:", config=CONFIG | {"temp_directory": str(spill or "")})
    try:
        database.execute(f"SET max_expression_depth = {int(depth)}")
        # Both: a pattern must be allowed, and so must be the file that it stands for.
        database.execute("SET allowed_paths = ?", [[*files, *map(escape, files)]])
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        yield database
    finally:
        database.close()


def answer(
    database: duckdb.DuckDBPyConnection, question: str, files: Sequence[str], batch: int
) -> pa.RecordBatchReader:
    """The rows of a question, as a stream of batches of so many rows; ``?`` in it stands for the files.

    The main thread only waits: by itself DuckDB looks for Ctrl-C when a sort is over.
    """

    def asked() -> pa.RecordBatchReader:
        return database.sql(question, params=[[escape(file) for file in files]]).to_arrow_reader(batch)

    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(asked).result()
        except KeyboardInterrupt:
            database.interrupt()
            raise


def quoted(name: str) -> str:
    """A column's name as DuckDB takes it."""
    return '"' + name.replace('"', '""') + '"'
