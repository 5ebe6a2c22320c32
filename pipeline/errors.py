"""Every error a user of teramito can meet, each one clear message: what, rule, why, remedy."""

from __future__ import annotations

from collections.abc import Sequence


class TeramitoError(Exception):
    """Base of all errors that teramito raises on purpose; the command line prints them as one line."""


class BadInput(TeramitoError):
    """Something the user gave cannot work; raised before any work starts wherever it can be known.

    Args:
        what: what was given, in the user's own words (path, key, value).
        rule: the rule it breaks.
        why: the reason for the rule.
        nearest: the nearest legal value or the remedy.
    """

    def __init__(self, what: str, rule: str, why: str = "", nearest: str = "") -> None:
        self.what, self.rule, self.why, self.nearest = what, rule, why, nearest
        super().__init__(_sentence(what, rule, why, nearest))

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str, str, str]]:
        return type(self), (self.what, self.rule, self.why, self.nearest)


class BadInputs(BadInput):
    """Several offenders at once, so that a user mends them all in one go."""

    def __init__(self, problems: Sequence[BadInput]) -> None:
        self.problems = tuple(problems)
        TeramitoError.__init__(self, "\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[type[BadInputs], tuple[tuple[BadInput, ...]]]:  # type: ignore[override]
        return type(self), (self.problems,)


class RunConflict(TeramitoError):
    """The run directory belongs to another configuration, or another process works in it."""


class StageFailed(TeramitoError):
    """Blocks of a stage failed for good; the run is resumable and not complete."""


class BlockFailed(TeramitoError):
    """One block of one stage failed; wraps the cause once, at the worker's border."""

    def __init__(self, stage: str, block: str, cause: str) -> None:
        self.stage, self.block, self.cause = stage, block, cause
        super().__init__(f"stage {stage}, block {block}: {cause}")

    def __reduce__(self) -> tuple[type[BlockFailed], tuple[str, str, str]]:
        return type(self), (self.stage, self.block, self.cause)


class RunCancelled(TeramitoError):
    """The user cancelled the run; every finished block is kept and the same command resumes it."""


def raise_all(problems: Sequence[BadInput]) -> None:
    """Raise nothing, the only problem, or all problems together."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BadInputs(problems)


def _sentence(what: str, rule: str, why: str, nearest: str) -> str:
    parts = [f"{what}: {rule}"]
    if why:
        parts.append(f"because {why}")
    text = ", ".join(parts)
    return f"{text}. {nearest}" if nearest else f"{text}."
