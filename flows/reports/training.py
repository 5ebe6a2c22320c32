"""What came out of a training, for people: markdown pages and where to look."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.terminal.pace import duration
from pipeline.training.record.curves import CURVES, EXAMPLES
from pipeline.training.record.history import Entry, History, is_number, read_history

_COLUMNS = {"iou": "IoU", "dice": "Dice", "ap50": "AP-50", "ap75": "AP-75"}
_RESTORED = {"psnr": "PSNR", "gain": "gain over the mean, dB", "gain_nearest": "over the nearest, dB"}
PICTURES = {CURVES: "Loss, learning rate, scores, time waited for data", EXAMPLES: "Predictions beside the truth"}


def training_report(model: Path, output: Path) -> dict[str, Any]:
    """The facts of a finished training: model and its task, steps, time, scores of the best validation."""
    history = read_history(output)
    return {
        "model": str(model),
        "task": json.loads(model.read_text()).get("kind", "segmentation"),
        "directory": str(output),
        "steps": history.last_step,
        "best_step": history.best_step,
        "seconds": round(sum(entry["seconds"] for entry in history.steps if is_number(entry.get("seconds"))), 1),
        "validation": [_scores(entry) for entry in _best(history)],
    }


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """A report for a terminal."""
    lines = [f"{report['steps']} steps in {duration(report['seconds'])}; model {report['model']}"]
    for one in report["validation"]:
        scores = ", ".join(f"{label} {one[key]:.3f}" for key, label in _columns([one]).items() if key in one)
        lines.append(f"  {one['validation']}: {scores} (step {one['step']})")
    return [*lines, *(f"  {what:11} {command}" for what, command in commands(report).items())]


def commands(report: Mapping[str, Any]) -> dict[str, str]:
    """What to do with the result."""
    option = "--model " if report["task"] == "segmentation" else "--set denoise.mode=auto --set denoise.model="
    return {
        "segment": f"teramito run --input VOLUME --output RUN {option}{report['model']}",
        "curves": f"{report['directory']}/{CURVES}",
        "TensorBoard": f"tensorboard --logdir {report['directory']}/tensorboard",
    }


def result_page(report: Mapping[str, Any]) -> str:
    """A report as markdown."""
    best = "" if report["best_step"] is None else f", the best validation at step {report['best_step']}"
    lines = [
        f"# Model {Path(report['model']).stem}",
        "",
        f"{report['steps']} steps in {duration(report['seconds'])}{best}.",
        "",
        f"* Model: `{report['model']}`",
        *(f"* {what}: `{command}`" for what, command in commands(report).items()),
        "",
        *score_table(report["validation"]),
    ]
    return "\n".join(lines)


def curves_page(output: Path) -> str:
    """The pictures of a training, inside the page itself, and its latest scores, as markdown."""
    history = read_history(output)
    lines = [f"# {output.name}: step {history.last_step}", ""]
    for name, title in PICTURES.items():
        if (output / name).exists():
            picture = base64.b64encode((output / name).read_bytes()).decode()
            lines += [f"## {title}", "", f"![{title}](data:image/png;base64,{picture})", ""]
    return "\n".join([*lines, *score_table([_scores(entry) for entry in _latest(history)])])


def score_table(validation: list[Entry]) -> list[str]:
    """Lines of a markdown table, a row a volume; none where nothing was validated."""
    if not validation:
        return []
    columns = _columns(validation)
    head = [f"| volume | step | {' | '.join(columns.values())} |", f"|---|---:|{'---:|' * len(columns)}"]
    return head + [
        f"| {one['validation']} | {one['step']} | "
        + " | ".join(f"{one[key]:.3f}" if key in one else "" for key in columns)
        + " |"
        for one in validation
    ]


def _columns(validation: list[Entry]) -> dict[str, str]:
    """The scores of networks, or those of restorers."""
    return _RESTORED if any("psnr" in one for one in validation) else _COLUMNS


def _best(history: History) -> list[Entry]:
    """The entries of the best validation, of the latest where none was called best."""
    best = [entry for entry in history.validations if entry["step"] == history.best_step]
    return best or _latest(history)


def _latest(history: History) -> list[Entry]:
    last = history.validations[-1]["step"] if history.validations else None
    return [entry for entry in history.validations if entry["step"] == last]


def _scores(entry: Entry) -> Entry:
    kept = {key: entry[key] for key in _columns([entry]) if is_number(entry.get(key))}
    return {"validation": entry["validation"], "step": entry["step"], **kept}
