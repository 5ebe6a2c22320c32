"""Whole networks made elsewhere, as one file: TorchScript, or `torch.export`.

Such a file holds code. It is run as it is, in evaluation mode, once its sha256 is that of the specification: trust the
specification as you trust the file.
"""

from __future__ import annotations

from io import BytesIO
from typing import cast
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from pipeline.errors import BadInput

ZIP_MAGIC = b"PK\x03\x04"


def foreign_network(architecture: str, content: bytes, where: str) -> nn.Module:
    """The network in the bytes of a "torchscript" or "exported" file.

    Raises:
        BadInput: the bytes are not such a file.
    """
    if not content.startswith(ZIP_MAGIC):
        raise _no_such_file(architecture, where, "it is no zip archive, which either kind is")
    return _torchscript(content, where) if architecture == "torchscript" else _exported(content, where)


def _torchscript(content: bytes, where: str) -> nn.Module:
    try:
        return torch.jit.load(BytesIO(content)).eval()  # type: ignore[no-untyped-call,no-any-return]
    except RuntimeError as error:
        raise _no_such_file("torchscript", where, str(error).split("\n")[0]) from None


def _exported(content: bytes, where: str) -> nn.Module:
    try:
        program = torch.export.load(BytesIO(content))
    except (RuntimeError, ValueError, KeyError, AssertionError, BadZipFile) as error:
        raise _no_such_file("exported", where, str(error).split("\n")[0]) from None
    return Exported(program, where)


def _no_such_file(architecture: str, where: str, why: str) -> BadInput:
    call = "torch.jit.script(network).save(path)" if architecture == "torchscript" else "torch.export.save(program, p)"
    return BadInput(where, f"the weights of architecture {architecture} are a file of that kind", why, f"Write {call}.")


class Exported(nn.Module):
    """A program of `torch.export`; sizes that were fixed there are kept: batches are cut or filled up to theirs."""

    def __init__(self, program: torch.export.ExportedProgram, where: str) -> None:
        super().__init__()
        self.module, self.where = program.module(), where
        self.sizes = _fixed_sizes(program, where)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, D, H, W) -> what the program gives, (N, ...).

        Raises:
            BadInput: a patch of another size than the program was exported for.
        """
        for given, fixed in zip(x.shape[1:], self.sizes[1:], strict=True):
            if fixed is not None and given != fixed:
                raise BadInput(
                    f"patches of shape {tuple(x.shape[1:])} for {self.where}",
                    f"patches have the shape it was exported for, {self.sizes[1:]} (None is free)",
                    "torch.export fixes each size that it is not told to leave open",
                    "Set predict.patch to that shape, or export with dynamic_shapes.",
                )
        batch = self.sizes[0] or len(x)
        return torch.cat([self._filled(part, batch) for part in torch.split(x, batch)])

    def _filled(self, part: Tensor, batch: int) -> Tensor:
        missing = batch - len(part)
        whole = part if not missing else torch.cat([part, part[:1].expand(missing, *part.shape[1:])])
        return cast(Tensor, self.module(whole))[: len(part)]

    def train(self, mode: bool = True) -> Exported:
        """A program has one mode, that of its export; returns itself."""
        return self


def _fixed_sizes(program: torch.export.ExportedProgram, where: str) -> tuple[int | None, ...]:
    inputs = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 5:
        raise BadInput(
            where, "an exported network takes one tensor (N, 1, D, H, W)", f"this one takes {[list(s) for s in shapes]}"
        )
    return tuple(size if isinstance(size, int) else None for size in shapes[0])
