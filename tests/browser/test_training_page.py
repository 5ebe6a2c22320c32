"""What a person sees of a training in Prefect, in a real browser."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chromium import chromium, executable
from running import ask

from flows.tracking.server import page_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(executable() is None, reason="chromium is not installed: apt-get install chromium"),
]


def test_prefect_shows_the_curves_inside_its_page_and_the_latest_drawing_replaces_the_first(
    api: str, tmp_path: Path
) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.reports.training import curves_page
    from flows.training import Page
    from pipeline.training.record.curves import draw_all

    @flow
    def drawing() -> None:
        made = Page("seen-curves", "here")
        for step in (1, 2):
            with (tmp_path / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "loss": 1.0 / step}) + "\n")
            draw_all(tmp_path)
            made.show(curves_page(tmp_path))

    with temporary_settings({PREFECT_API_URL: api}):
        drawing()
    (artifact,) = ask(api, "artifacts/filter", {"artifacts": {"key": {"any_": ["seen-curves"]}}})
    with chromium(tmp_path / "profile") as page:
        page.open(f"{page_of(api)}/artifacts/artifact/{artifact['id']}")
        page.await_text(f"{tmp_path.name}: step 2", "Loss, learning rate")
        until, seen = time.monotonic() + 30, list[Any]()
        while not seen and time.monotonic() < until:
            seen = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
            time.sleep(0.2)
        ((complete, natural_width, shown_width),) = seen
        assert complete
        assert natural_width > 1000
        assert shown_width > 400
