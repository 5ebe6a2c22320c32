"""Every error a user of teramito can meet, each one clear message: what, rule, why, remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.geometry import Box


class TeramitoError(Exception):
    """Base of all errors that teramito raises on purpose; the command line prints them as one line.

    A pickled one keeps all its fields, whatever its constructor takes: errors come back from workers.
    """

    def __reduce__(self) -> tuple[Callable[..., TeramitoError], tuple[Any, ...]]:
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(kind: type[TeramitoError], args: tuple[Any, ...], fields: dict[str, Any]) -> TeramitoError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


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


class Unreadable(BadInput):
    """Something stored is torn, or gone; in messages and ledgers it is called a BadInput, as it is one.

    Args:
        what, rule, why, nearest: as those of ``BadInput``.
        path: local path or URL of the stored array or file.
        box: the voxels of the array that were asked for; None for a file that is read whole.
    """

    def __init__(
        self, what: str, rule: str, why: str = "", nearest: str = "", *, path: str, box: Box | None = None
    ) -> None:
        self.path, self.box = path, box
        super().__init__(what, rule, why, nearest)


class BadInputs(BadInput):
    """Several offenders at once, so that a user mends them all in one go."""

    def __init__(self, problems: Sequence[BadInput]) -> None:
        self.problems = tuple(problems)
        TeramitoError.__init__(self, "\n".join(str(problem) for problem in problems))


class RunConflict(TeramitoError):
    """The run directory belongs to another configuration, or another process works in it."""


class BlockFailed(TeramitoError):
    """One block of one stage failed, or was not computed.

    Args:
        stage: its name.
        block: the number in the stage's grid.
        box: what the block writes, voxels z y x of that grid.
        cause: the reason, one line.
        unreadable: path or URL of the stored array or file that could not be read, if that is why.
    """

    def __init__(self, stage: str, block: int, box: Box, cause: str, unreadable: str | None = None) -> None:
        self.stage, self.block, self.box, self.cause, self.unreadable = stage, block, box, cause, unreadable
        super().__init__(f"block {block} {box}: {cause}")


class StageFailed(TeramitoError):
    """Blocks of a stage failed for good; the run is resumable and not complete.

    Args:
        message: what a user is told.
        stage: its name; empty where it is no single one.
        failures: the first of the blocks that failed.
    """

    def __init__(self, message: str, stage: str = "", failures: Sequence[BlockFailed] = ()) -> None:
        self.stage, self.failures = stage, tuple(failures)
        super().__init__(message)


class RunCancelled(TeramitoError):
    """The user cancelled the run; every finished block is kept and the same command resumes it."""


def kind_of(error: BaseException) -> str:
    """What an error is called in messages and ledgers: by its class, one that cannot be read as the bad input it is."""
    return BadInput.__name__ if isinstance(error, Unreadable) else type(error).__name__


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
