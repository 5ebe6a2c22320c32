"""Files that a specification pins by their sha256, and the shelf of specifications that come with the package."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import BadInput

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class PinnedSpec(BaseModel):
    """What every specification of trained weights states.

    Attributes:
        name, description: for people.
        weights: file beside the specification, in safetensors format unless the specification says otherwise.
        sha256: of that file, checked before it is read.
    """

    model_config = STRICT

    name: str
    description: str = ""
    weights: str = Field(pattern=r"^[^/\\]+\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def weights_beside(self, specification: Path) -> bytes:
        """The content of the weights beside a specification, after its hash; parse these very bytes.

        Raises:
            BadInput: no such file, or another sha256 than the specification's.
        """
        return pinned_bytes(specification.parent / self.weights, self.sha256, "weights")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The specifications of one kind (``model``, ``restorer``) in a folder of the package."""

    folder: Path
    kind: str

    def names(self) -> list[str]:
        """Names of those that come with the package."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def path(self, name_or_path: str | Path) -> Path:
        """The JSON file of a shipped name, or of a path that ends in .json.

        Raises:
            BadInput: no such name or file.
        """
        text, names = str(name_or_path), self.names()
        path = Path(text) if text.endswith(".json") else self.folder / f"{text}.json"
        if path.is_file() and (text.endswith(".json") or text in names):
            return path
        close = get_close_matches(text, names, 1)
        raise BadInput(
            f"{self.kind} {text!r}",
            f"a {self.kind} is a shipped name or the path of an existing .json specification",
            "its weights are read from beside that file",
            f"{f'Did you mean {close[0]}? ' if close else ''}Shipped: {', '.join(names) or 'none'}.",
        )


def first_error(error: ValidationError) -> tuple[str, str]:
    """Where the first thing is that is wrong in a specification, and what is said of it."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]) or "the file", str(first["msg"])


def pinned_bytes(path: Path, expected: str, what: str) -> bytes:
    """The content of a file ("weights" or "code") whose sha256 a specification states.

    Raises:
        BadInput: no such file, or another sha256.
    """
    if not path.is_file():
        raise BadInput(str(path), f"the {what} lie beside the specification", "there is no such file", "Copy both.")
    content = path.read_bytes()
    found = sha256(content).hexdigest()
    if found != expected:
        raise BadInput(
            f"{path}: sha256 {found}",
            f"the {what} have the sha256 of the specification, {expected}",
            f"other {what} would silently give another segmentation",
            "Fetch specification and weights together again."
            if what == "weights"
            else "Read the file; where the change is yours, put its sha256 into code_sha256.",
        )
    return content
