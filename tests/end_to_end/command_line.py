"""The ``teramito`` command called in this process: the same entry point, exit code and streams, without its start."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import zarr

from flows.cli import main


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    def refuses(self, *parts: str) -> None:
        """Assert one clear message on standard error that holds all parts, and a non-zero exit."""
        assert self.code == 1, (self.code, self.out, self.err)
        assert len(re.findall("^error: ", self.err, re.MULTILINE)) == 1, self.err
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.err, self.err


Teramito = Callable[..., Said]


@pytest.fixture
def teramito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Teramito]:
    """Call the command; ``run`` and ``instances`` stay in this process, one block after another, without Prefect."""

    def call(*given: str) -> Said:
        here = ["--no-prefect", "--set", "cluster.kind=none", "--set", "cluster.threads_per_worker=1"]
        monkeypatch.setattr(sys, "argv", ["teramito", *given, *(here if given[0] in ("run", "instances") else [])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Said(int(ended.value.code or 0), printed.out, printed.err)

    # The command chooses zarr's codecs for its process; here the process belongs to all tests.
    names = ("codec_pipeline.path", "async.concurrency")
    with zarr.config.set({name: zarr.config.get(name) for name in names}):
        yield call
