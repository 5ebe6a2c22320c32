"""How far a training is, from the entries of its log."""

from __future__ import annotations

import time
from collections import deque

from flows.terminal.pace import duration
from pipeline.training.record.history import Entry, is_number

RECENT = 20  # steps over which the loss is averaged
_SCORES = {"iou": "IoU", "ap75": "AP-75", "psnr": "PSNR", "gain": "gain in dB"}


class TrainingPace:
    """Step, time left, recent loss and latest scores, from the entries of the log as they are written."""

    def __init__(self, steps: int) -> None:
        self._steps, self.step = steps, 0
        self._first: tuple[int, float] | None = None  # first step seen here, and when it ended
        self._losses: deque[float] = deque(maxlen=RECENT)
        self._scores: list[Entry] = []  # of the latest validation

    def note(self, entry: Entry) -> None:
        """Take an entry in."""
        self.step = int(entry["step"])
        if "validation" in entry:
            kept = [one for one in self._scores if one["step"] == self.step]
            self._scores = [*kept, entry]
            return
        if is_number(entry.get("loss")):
            self._losses.append(entry["loss"])
        self._first = self._first or (self.step, time.monotonic())

    @property
    def percent(self) -> float:
        """0..100."""
        return min(100.0, 100.0 * self.step / self._steps)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.step >= self._steps

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the speed that this process has seen, validation included; None before its second step."""
        if self._first is None or self.step <= self._first[0]:
            return None
        first, since = self._first
        return (time.monotonic() - since) / (self.step - first) * max(0, self._steps - self.step)

    def __str__(self) -> str:
        left = "" if self.eta_s is None or self.finished else f", {duration(self.eta_s)} left"
        loss = f"; loss {sum(self._losses) / len(self._losses):.4g}" if self._losses else ""
        return f"step {self.step} of {self._steps} ({self.percent:.0f} %){left}{loss}{self._scored()}"

    def _scored(self) -> str:
        """The mean over the validated volumes."""
        means = []
        for key, label in _SCORES.items():
            values = [one[key] for one in self._scores if is_number(one.get(key))]
            means += [f"{label} {sum(values) / len(values):.3f}"] if values else []
        return f"; {', '.join(means)} at step {self._scores[0]['step']}" if means else ""
