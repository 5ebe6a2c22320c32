"""The Prefect flow of a training: one task in the driver, its progress, curves and result as artifacts."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.states import Cancelled
from pydantic import BeforeValidator

from flows.drive_training import TRAINING_CANCELLED
from flows.reports.training import curves_page, result_page, training_report
from flows.terminal.interrupts import interruptible
from flows.terminal.training_pace import TrainingPace
from flows.terminal.training_progress import throttled
from flows.tracking.artifacts import EVERY_S, Artifact
from flows.tracking.stale import close_stale_runs
from flows.tracking.tasks import as_task, cancellable, run_name
from pipeline.engine.lock import run_lock
from pipeline.errors import RunCancelled
from pipeline.training.record.curves import CURVES
from pipeline.training.record.history import Entry
from pipeline.training.record.log import TrainingProgress
from pipeline.training.session import output_of
from pipeline.training.task import TaskConfig, task_of, train_task

PROGRESS_KEY, CURVES_KEY, RESULT_KEY = "training-progress", "training-curves", "training-result"
# What a person at a terminal sees beside Prefect's pages; none where a Prefect worker runs the flow.
TERMINAL: ContextVar[TrainingProgress | None] = ContextVar("TERMINAL", default=None)
_LOG = logging.getLogger(__name__)


def from_form(value: Any) -> Any:
    """Values of a form or an API as the configuration takes them from a file: its arrays are tuples."""
    return task_of(value).model_validate_json(json.dumps(value)) if isinstance(value, dict) else value


@flow(name="train-network", flow_run_name=run_name, persist_result=False, validate_parameters=True)
def train_network(config: Annotated[TaskConfig, BeforeValidator(from_form)]) -> Any:
    """Volumes to a network: train, validate, write the model (or the restorer) that segment-volume takes.

    The same output directory again goes on from the last checkpoint.
    """
    output = output_of(config)
    with run_lock(output):
        close_stale_runs(output)
        try:
            report = _trained(config, output)
        except RunCancelled as cancelled:
            return Cancelled(message=str(cancelled))
    create_markdown_artifact(result_page(report), key=RESULT_KEY, description=str(output))
    get_run_logger().info("model %s", report["model"])
    return report


def _trained(config: TaskConfig, output: Path) -> dict[str, Any]:
    shown = TrainingArtifacts(config.steps, output)
    with interruptible(TRAINING_CANCELLED), cancellable():
        model = as_task("train", lambda: train_task(config, shown), TRAINING_CANCELLED)
    report = training_report(model, output)
    shown.finished()
    return report


class TrainingArtifacts:
    """A progress bar and a page with the curves and examples; make it inside the flow run.

    Args:
        steps: of the whole training.
        output: its directory, in which the pictures appear.
        every_s: seconds between two updates of the bar.
    """

    def __init__(self, steps: int, output: Path, every_s: float = EVERY_S) -> None:
        self._pace, self._output = TrainingPace(steps), output
        self._bar, self._curves = Artifact(PROGRESS_KEY), Page(CURVES_KEY, str(output))
        self._told = throttled(self._pace, self._show, every_s)
        self._terminal, self._drawn = TERMINAL.get(), 0
        self._bar.show(0.0, f"{output.name}: reading the volumes")

    def __call__(self, entry: Entry) -> None:
        """Take in an entry of the log."""
        if self._terminal is not None:
            self._terminal(entry)
        self._told(entry)
        self._show_curves()

    def finished(self) -> None:
        """The model is written."""
        self._bar.show(100.0, f"{self._output.name}: {self._pace}; the model is written")
        self._show_curves()

    def _show(self, pace: TrainingPace) -> None:
        self._bar.show(pace.percent, f"{self._output.name}: {pace}")

    def _show_curves(self) -> None:
        """Whenever they were drawn anew."""
        path = self._output / CURVES
        drawn = path.stat().st_mtime_ns if path.exists() else 0
        if drawn != self._drawn:
            self._drawn = drawn
            self._curves.show(curves_page(self._output))


class Page:
    """One markdown artifact whose text is replaced.

    A new version of each drawing would fill Prefect's database with pictures, and its own update would put them into an
    event as well.
    """

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._id: UUID | None = None

    def show(self, text: str) -> None:
        """Write it; a server that does not answer costs the page, never the training."""
        try:
            if self._id is None:
                made: Any = create_markdown_artifact(text, key=self._key, description=self._description)
                self._id = made
            else:
                with get_client(sync_client=True) as client:
                    client.request("PATCH", "/artifacts/{id}", json={"data": text}, path_params={"id": self._id})
        except httpx.HTTPError as error:
            _LOG.warning("the curves could not be shown: %s", error)
