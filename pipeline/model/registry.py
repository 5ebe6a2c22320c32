"""Networks by name: those of this package, those a user registers, and classes in a file of the user's.

A network is an `nn.Module` with `logits(x)` and `forward(x)`: (N, 1, D, H, W) float32 -> (N, 2, D, H, W), channel 0 the
semantic mask, channel 1 the instance boundary, the second as probabilities 0..1. Its attribute `multiple` (z, y, x) is
what the size of a patch must be a multiple of.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.options import FILE_KINDS, OPTIONS, AnyOptions, checked_options, class_in_file
from pipeline.model.pinned import pinned_bytes
from pipeline.model.resunet_h import ResUNetH
from pipeline.model.resunet_h_code import ResUNetHCode
from pipeline.model.resunet_r import ResUNetR

SHOWN_LAYERS = 3
_NETWORKS: dict[str, type[nn.Module]] = {
    "resunet-r": ResUNetR,
    "resunet-h": ResUNetH,
    "resunet-h-code": ResUNetHCode,
}
_Network = TypeVar("_Network", bound=type[nn.Module])


def names() -> list[str]:
    """Every architecture with a name that `build` takes."""
    return sorted(_NETWORKS)


def register(name: str, options: type[BaseModel] = AnyOptions) -> Callable[[_Network], _Network]:
    """Class decorator: `build(name, options)` makes this network, in every process that imports its module.

    A class in a file beside the specification ("my_net.py:MyNet") needs no registration, and works in processes that
    never imported it.

    Args:
        name: letters, digits and hyphens; not one that is taken.
        options: a pydantic model of the class's keyword arguments; without one the class checks them itself.
    """

    def add(network: _Network) -> _Network:
        if name in OPTIONS:
            raise BadInput(f"architecture {name!r}", "a name stands for one network", "it is taken", "Take another.")
        _require_network(network, name)
        OPTIONS[name], _NETWORKS[name] = options, network
        return network

    return add


def build(
    architecture: str, options: Mapping[str, Any], folder: Path | None = None, code_sha256: str | None = None
) -> nn.Module:
    """A network with random weights, by the current state of torch's generator.

    Args:
        architecture: a name of `names()`, or "FILE.py:CLASS".
        options: see `options.py`; a class in a file gets them as keyword arguments.
        folder: where FILE.py lies; the working directory where it is missing.
        code_sha256: that FILE.py must have; unchecked where it is missing (your own file, in training).

    Raises:
        BadInput: no such architecture, file or class, an option that it does not have, or another sha256.
    """
    complete = checked_options(architecture, options)
    if architecture in FILE_KINDS:
        raise BadInput(
            f"architecture {architecture!r}",
            "a network to be built has a class",
            "this one is a file of a whole trained network",
            f"Known: {', '.join(names())}, FILE.py:CLASS.",
        )
    place = class_in_file(architecture)
    network = _NETWORKS[architecture] if place is None else _class_of(folder or Path(), *place, code_sha256)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in complete.items()}
    try:
        inspect.signature(network).bind(**arguments)
    except TypeError as error:
        raise BadInput(
            f"options of {architecture}",
            "options are the keyword arguments of the class",
            str(error),
            f"It takes {inspect.signature(network)}.",
        ) from None
    with users_code(architecture):
        return network(**arguments)


@contextmanager
def users_code(where: str) -> Iterator[None]:
    """Whatever the code of a network raises (it may be a user's, so anything) as one line that names the place.

    Raises:
        BadInput: with the exception as its cause.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            where,
            "the code of a network runs without an error",
            f"{place.filename}, line {place.lineno}, raised {said}",
            "Mend it there; what a network is: pipeline/model/README.md.",
        ) from error


def load_weights(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a network of the same architecture.

    Args:
        network: as `build` makes it.
        state: tensors by the names of its `state_dict`.
        where: what the user calls these weights, for the message.

    Raises:
        BadInput: another architecture; names the first layers that are missing, unexpected or of another shape.
    """
    refuse_mismatches(network.state_dict(), state, where)
    network.load_state_dict(state)


def refuse_mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise BadInput where two state dicts differ in names or shapes; names the first layers that do."""
    wrong = mismatches(expected, state)
    if wrong:
        more = len(wrong) - SHOWN_LAYERS
        raise BadInput(
            where,
            "the weights fit the architecture",
            "; ".join(wrong[:SHOWN_LAYERS]) + (f"; and {more} more" if more > 0 else ""),
            "Take architecture, options and weights from the same training run.",
        )


def mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """One phrase for every tensor that is missing, has another shape, or is not expected; in the order expected."""
    found = []
    for name, value in expected.items():
        if name not in state:
            found.append(f"{name} {_shape(value)} is missing")
        elif state[name].shape != value.shape:
            found.append(f"{name} is {_shape(state[name])}, the network has {_shape(value)}")
    return found + [f"{name} {_shape(state[name])} is not in the network" for name in state if name not in expected]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _class_of(folder: Path, file: str, name: str, code_sha256: str | None) -> type[nn.Module]:
    path = folder / file
    module = _module_of(path, code_sha256)
    network = getattr(module, name, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        there = [key for key, value in vars(module).items() if _is_own_network(value, module)]
        raise BadInput(
            f"{file}:{name}",
            "after the colon stands a torch.nn.Module class of the file",
            f"{path} has none of that name",
            f"It has: {', '.join(there) or 'no such class'}.",
        )
    _require_network(network, f"{file}:{name}")
    return network


def _is_own_network(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__


def _module_of(path: Path, code_sha256: str | None) -> ModuleType:
    """The user's file as a module; the bytes that are run are those whose hash was checked."""
    if not path.is_file():
        raise BadInput(str(path), "the file of the class lies beside the specification", "there is no such file")
    content = path.read_bytes() if code_sha256 is None else pinned_bytes(path, code_sha256, "code")
    name = f"{path.stem}_{sha256(content).hexdigest()[:12]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # where dataclasses and pickle look for it
        try:
            with users_code(str(path)):
                exec(compile(content, str(path), "exec"), module.__dict__)
        except BadInput:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _require_network(network: type[nn.Module], where: str) -> None:
    missing = [part for part in ("logits", "multiple") if not hasattr(network, part)]
    if network.forward is nn.Module.forward:
        missing.append("forward")
    if missing:
        raise BadInput(
            where,
            "a network has logits(x), forward(x) and the attribute multiple = (z, y, x)",
            f"it lacks {', '.join(missing)}",
            "See pipeline/model/README.md.",
        )
