"""Importing the library loads none of the heavy frameworks; planning a run needs none of them either."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows.cli import Commands

HEAVY = ("dask", "distributed", "prefect", "torch", "cloudvolume", "cc3d")
PLANNING = ["pipeline", "pipeline.store.volume", "pipeline.run.config", "pipeline.grid", "pipeline.model.spec"]


@pytest.mark.parametrize("module", [*PLANNING, "pipeline.run.plan"])
def test_an_import_of_the_library_loads_no_framework(module: str) -> None:
    forbidden = [name for name in HEAVY if not (module == "pipeline.run.plan" and name == "cc3d")]
    script = f"import sys, {module}; print([name for name in {forbidden} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_loads_none_of_the_work() -> None:
    script = "import atexit, sys, flows.cli as c; atexit.register(lambda: print('numpy' in sys.modules)); c.main()"
    found = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert "mitochondria" in found.stdout
    assert found.stdout.splitlines()[-1] == "False"


COMMANDS = sorted({f"flows.commands.{place.split('.')[0]}" for place in Commands.places.values()})


@pytest.mark.parametrize("module", ["pipeline.run.jobs", *COMMANDS])
def test_a_driver_that_plans_and_asks_loads_neither_torch_nor_dask(module: str) -> None:
    heavy = ("torch", "prefect", "distributed")
    script = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["pipeline.training.task", "pipeline.training.segmentation.train", "flows.training"])
def test_tensorboard_is_loaded_only_when_its_events_are_written(module: str) -> None:
    script = f"import sys, {module}; print([name for name in sys.modules if 'tensorboard' in name.split('.')])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['pipeline.training.record.tensorboard']"


def test_rich_is_loaded_only_when_something_is_drawn() -> None:
    script = f"import sys, {', '.join(COMMANDS)}; print('rich' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    "module", ["pipeline.training.segmentation.config", "pipeline.model.spec", "pipeline.instances.ops.stitch"]
)
def test_an_import_has_no_output(module: str) -> None:
    found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")
