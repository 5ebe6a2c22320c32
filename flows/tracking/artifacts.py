"""How far a run is, for Prefect's pages: one progress artifact a step and one for the whole run, each with its ETA."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.terminal.pace import Watcher, duration
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.engine.executor import Progress
from pipeline.engine.ledger import Ledger
from pipeline.engine.stage import Stage
from pipeline.engine.step import Step
from pipeline.predict.stage import PredictStage

EVERY_S = 2.0  # an artifact update costs about 16 ms
RUN_KEY = "progress-run"
# Seconds a megavoxel (of the network's own voxels for predict) on two CPU cores with the shipped model. Only the ratios
# matter, for the share of a step in the whole run; the time left follows what the run itself is seen to take.
COST = {
    "predict": 10.0,
    "inspect": 0.02,
    "compare": 0.01,
    "damage": 0.01,
    "restore": 0.05,
    "label": 0.03,
    "stitch": 0.01,
    "grow": 0.06,
    "relabel": 0.02,
    "measure": 0.03,
    "export": 0.15,
}
RESTORE_EVERYWHERE = 1.0  # seconds a megavoxel too, where the restorer takes every voxel
_LOG = logging.getLogger(__name__)


class Work:
    """Progress over several stages of different weight, in the order in which they run."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._done = dict.fromkeys(weights, 0.0)
        self._before = dict.fromkeys(weights, 0.0)
        self._started = time.monotonic()

    def enter(self, stage: str) -> None:
        """A stage begins: those before it that this process did not see were finished by an earlier one.

        A stage that was not known at the start (a level of super-blocks) costs next to nothing and counts so.
        """
        if stage not in self._weights:
            self._weights[stage] = self._done[stage] = self._before[stage] = 0.0
            return
        for name in list(self._weights)[: list(self._weights).index(stage)]:
            if self._done[name] == 0.0:
                self._done[name] = self._before[name] = 1.0

    def resumed(self, stage: str, fraction: float) -> None:
        """The fraction of a stage that an earlier process did."""
        self._done[stage] = self._before[stage] = fraction

    def note(self, stage: str, fraction: float) -> None:
        """The fraction of a stage that is done now."""
        self._done[stage] = fraction

    @property
    def percent(self) -> float:
        """0..100."""
        everything = self._sum(dict.fromkeys(self._weights, 1.0))
        return 100.0 * self._sum(self._done) / everything if everything else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the speed that this process has seen; None before its first block."""
        fresh = self._sum(self._done) - self._sum(self._before)
        left = self._sum(dict.fromkeys(self._weights, 1.0)) - self._sum(self._done)
        return (time.monotonic() - self._started) / fresh * left if fresh > 0 else None

    def __str__(self) -> str:
        left = "" if self.eta_s is None or self.percent >= 100 else f", {duration(self.eta_s)} left"
        return f"{self.percent:.0f} %{left}"

    def _sum(self, fractions: Mapping[str, float]) -> float:
        return sum(weight * fractions[name] for name, weight in self._weights.items())


class Artifact:
    """One progress artifact, made when it first has something to say."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._id: UUID | None = None

    def show(self, percent: float, text: str) -> None:
        """Write it; a server that does not answer costs the picture, never the run."""
        try:
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, self._key, text))
            else:
                update_progress_artifact(self._id, percent, text)
        except httpx.HTTPError as error:
            _LOG.warning("the progress could not be shown: %s", error)


class ArtifactWatcher(Watcher):
    """Watches all steps of a run; make it inside the flow run, so that the run's own artifact belongs to it."""

    def __init__(self, steps: Sequence[Step], title: str, every_s: float = EVERY_S) -> None:
        self._steps, self._title, self._every_s = {step.name: step for step in steps}, title, every_s
        self._run = Work({stage.name: _weight(step.name, stage) for step in steps for stage in step.stages})
        self._run_artifact = Artifact(RUN_KEY)
        self._step_work: dict[str, Work] = {}
        self._step_artifacts: dict[str, Artifact] = {}
        self._last = 0.0
        self._run_artifact.show(0.0, f"{title}: starting workers")

    def __call__(self, step: str, stage: Stage) -> Progress:
        """Watch one stage of a step."""
        if step not in self._step_work:
            self._step_work[step] = Work({s.name: _weight(step, s) for s in self._steps[step].stages})
            self._step_artifacts[step] = Artifact(f"progress-{step}")
        works = (self._run, self._step_work[step])
        for work in works:
            work.enter(stage.name)
        return self._progress(step, stage, works)

    def finished(self) -> None:
        """Every step is done and verified."""
        self._run_artifact.show(100.0, f"{self._title}: complete and verified")

    def _progress(self, step: str, stage: Stage, works: Sequence[Work]) -> Progress:
        seen = False

        def progress(ledger: Ledger) -> None:
            nonlocal seen
            for work in works:
                if not seen:
                    work.resumed(stage.name, (ledger.done_count - 1) / ledger.size)
                work.note(stage.name, ledger.done_count / ledger.size)
            seen = True
            whole = ledger.done_count == ledger.size
            last = whole and stage.name == self._steps[step].all_stages()[-1].name
            if last or time.monotonic() - self._last >= self._every_s:
                self._last = time.monotonic()
                self._show(step, f"{stage.name} {ledger.done_count} of {ledger.size} blocks")

        return progress

    def _show(self, step: str, blocks: str) -> None:
        work = self._step_work[step]
        self._step_artifacts[step].show(work.percent, f"{step}: {work} ({blocks})")
        number = list(self._steps).index(step) + 1
        self._run_artifact.show(
            self._run.percent, f"{self._title}: {self._run}; step {number} of {len(self._steps)}, {step}"
        )


def _weight(step: str, stage: Stage) -> float:
    voxels: float = prod(stage.grid.extent)
    if isinstance(stage, RestoreStage) and stage.damage is None:
        return RESTORE_EVERYWHERE * voxels
    if isinstance(stage, PredictStage):
        voxels *= stage.passes / prod(stage.op.scale)
    return COST.get(stage.name, COST.get(step, 0.1)) * voxels
