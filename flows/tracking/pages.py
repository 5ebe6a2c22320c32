"""The pages of a run in Prefect: what was restored, and what came out."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_markdown_artifact

from flows.reports.restoration import restored_page
from flows.reports.run import markdown_of
from pipeline.denoise.summary import restoration_of
from pipeline.engine.directory import RunDirectory
from pipeline.run.job import Job


def publish_restored(directory: RunDirectory) -> None:
    """What was replaced, in words and pictures, while the network goes on."""
    page = restored_page(restoration_of(directory), directory.restored_sheet)
    create_markdown_artifact(page, key="restored", description="Damage that was restored, before and after")


def publish_result(job: Job, report: dict[str, Any]) -> None:
    """What came out of a finished run."""
    create_markdown_artifact(markdown_of(job, report), key="teramito-result", description=str(job.directory.root))
