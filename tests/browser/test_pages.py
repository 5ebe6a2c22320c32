"""What a person sees: Prefect's page of a run, and the result in Neuroglancer, in a real browser."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chromium import Page, chromium, executable
from running import ended, exported_run, flow_run_id, run_command, teramito

from flows.tracking.server import page_of
from flows.view import serving
from pipeline.engine.directory import RunDirectory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(executable() is None, reason="chromium is not installed: apt-get install chromium"),
]
STEPS = ("predict", "label", "stitch", "merge", "grow", "select", "relabel", "export", "verify")
WITHOUT_BLOCKS = ("merge", "select", "verify")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all pages."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, str]:
    """A finished run on noise and the id of its flow run."""
    output = tmp_path_factory.mktemp("browser") / "seen-run"
    process = teramito(*run_command(output, (16, 64, 64)), api=api)
    number = flow_run_id(process)
    assert ended(process)[0] == 0
    return RunDirectory(output), number


def test_prefect_shows_the_steps_their_progress_and_the_result(
    page: Page, api: str, finished: tuple[RunDirectory, str]
) -> None:
    directory, number = finished
    page.open(f"{page_of(api)}/runs/flow-run/{number}")
    page.await_text("seen-run", "Completed", *(f"{step} is done" for step in STEPS))
    page.click("Task Runs")
    page.await_text(f"{len(STEPS)} Task runs", *STEPS)
    page.click("Artifacts")
    watched = [f"progress-{step}" for step in STEPS if step not in WITHOUT_BLOCKS]
    page.await_text("progress-run", "complete and verified", *watched)
    page.await_text("teramito-result", str(directory.root))


def test_neuroglancer_shows_the_tissue_with_coloured_instances(page: Page, tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer")
    with serving(RunDirectory(exported_run(tmp_path))) as shown:
        page.open(shown.page)
        page.await_text("raw", "segmentation")
        until = time.monotonic() + 60
        while min(seen := _colours(page.picture())) < 20 and time.monotonic() < until:
            time.sleep(1)
        greys, colours = seen
        assert greys >= 20, "the tissue is not there"
        assert colours >= 20, "the instances are not there"
        assert [error for error in page.errors if "favicon" not in error and "404" not in error] == []
        assert "rror" not in page.text()


def _colours(picture: bytes) -> tuple[int, int]:
    """How many different greys and how many different colours the middle of the first cross-section has."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[100:700, 200:500].reshape(-1, 3).astype(int)
    spread = pixels.max(axis=1) - pixels.min(axis=1)
    grey, coloured = pixels[spread == 0], pixels[spread > 20]
    return len(np.unique(grey, axis=0)), len(np.unique(coloured, axis=0))
