"""The authors' checkpoints (`.pth.tar` of MitoEM2021-Challenge) as models of this package.

Names and shapes of their layers are those of `unet_residual_3d` (Res-UNet-R) and `RSUNet` (Res-UNet-H) in the public
repository. Dropped on the way: the fixed kernels of the up-sampling (checked), and the weights that Res-UNet-R builds
and never uses: the 1x1x1 projectors of all residual blocks but the deepest, and the skip convolutions below the finest.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import BadInput
from pipeline.model.normalisation import Normalisation
from pipeline.model.options import CODE_WIDTHS, PUBLISHED_WIDTHS
from pipeline.model.registry import build, load_weights, refuse_mismatches
from pipeline.model.spec import ModelSpec, Thresholds
from pipeline.model.tensors import to_bytes

PATCH = (32, 256, 256)
_OVERLAP = (16, 128, 128)
_THRESHOLDS = Thresholds(seed_semantic=0.9, seed_boundary=0.8)
"""T1 and T2 of the published post-processing."""
ARCHITECTURES = ("resunet-r", "resunet-h-code")
_MARKS = {"resunet-r": ("downE.", "downC.", "upE."), "resunet-h-code": ("embed_in.", "convmod0.", "dconvmod0_o.")}
_DROPPED = {
    "resunet-r": re.compile(r"middle\.[1-3]\.0\.1\.|(downE\.2|downC\.\d\.1|upC\.\d\.1|upE\.1)\.projector\.0\."),
    "resunet-h-code": re.compile(r"$^"),
}
_KERNELS = re.compile(r"upS\.\d\.1\.weight|upsample\d_[oc]\.up\.weight")
_TAPS = (0.25, 0.75, 0.75, 0.25)


def import_checkpoint(
    source: Path,
    directory: Path,
    name: str,
    voxel_size_nm: tuple[float, float, float],
    architecture: str | None = None,
) -> Path:
    """Write NAME.safetensors and NAME.json from a checkpoint of the authors; returns the path of the second.

    Args:
        source: `.pth.tar` with the key `state_dict`, or a bare state dict.
        directory: made where it is missing.
        name: of the model, and of its two files, which must not exist.
        voxel_size_nm: (z, y, x) of the volumes that it was trained on.
        architecture: one of `ARCHITECTURES`; told from the names of the layers where it is missing.

    Raises:
        BadInput: no such file, a pickle that holds more than tensors, another architecture, or a model of that name.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise BadInput(f"--name {name}", "a name is letters, digits and . _ + -", "it names the two files of the model")
    network = network_of(read_checkpoint(source), str(source), architecture)
    path = directory / f"{name}.json"
    weights = path.with_suffix(".safetensors")
    for file in (path, weights):
        if file.exists():
            raise BadInput(str(file), "an import overwrites no model", "there is one", "Take another --name.")
    content = to_bytes(network.state_dict())
    spec = _specification(network, source, name, voxel_size_nm, weights.name, hashlib.sha256(content).hexdigest())
    directory.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(content)
    path.write_text(spec.model_dump_json(indent=2) + "\n")
    return path


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, without the prefix `module.` of a parallel one; on the CPU.

    No code in the file is run: torch's restricted unpickler makes tensors and plain containers only.

    Raises:
        BadInput: no such file, code in it, or no state dict.
    """
    if not path.is_file():
        raise BadInput(str(path), "a checkpoint is a file", "there is none of that name")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blamed = re.search(r"GLOBAL [\w.]+|Unsupported [\w ]+", str(error))
        if blamed is None:
            raise _not_saved(path, error) from None
        raise BadInput(
            str(path),
            "a checkpoint holds tensors, numbers and text only",
            f"a pickle with anything else could run any code ({blamed[0]})",
            "Store its state dict alone: torch.save(state_dict, path).",
        ) from None
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise _not_saved(path, error) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise BadInput(str(path), "a checkpoint is a state dict, or holds one under state_dict", f"this has {keys}")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def network_of(state: Mapping[str, Tensor], where: str, architecture: str | None = None) -> nn.Module:
    """The network of this package with the weights of a checkpoint of the authors; widths are told from the shapes.

    Raises:
        BadInput: another architecture; names the first layers that do not fit, as the checkpoint calls them.
    """
    architecture = architecture or _recognised(state, where)
    if architecture not in ARCHITECTURES:
        raise BadInput(
            f"--architecture {architecture}",
            "checkpoints of the authors are of one of their two networks",
            nearest=f"One of: {', '.join(ARCHITECTURES)}.",
        )
    network = build(architecture, {"widths": _widths(state, architecture)})
    theirs = {ours: name for name, ours in layer_names(architecture).items()}
    expected = {theirs[ours]: value for ours, value in network.state_dict().items()}
    dropped = _DROPPED[architecture]
    used = {name: value for name, value in state.items() if not (dropped.match(name) or _KERNELS.fullmatch(name))}
    refuse_mismatches(expected, used, f"{where} as {architecture}")
    _require_bilinear(state, where)
    names = layer_names(architecture)
    load_weights(network, {names[name]: value.float() for name, value in used.items()}, where)
    return network.eval()


def layer_names(architecture: str) -> dict[str, str]:
    """The authors' name of every tensor that takes part in the output -> ours."""
    layers = _names_of_r() if architecture == "resunet-r" else _names_of_h()
    names = {
        f"{theirs}.{part}": f"{ours}.conv.{part}" for theirs, ours in layers.items() for part in ("weight", "bias")
    }
    # A partial convolution holds its bias beside the convolution.
    return {theirs: re.sub(r"(stem\.\d)\.conv\.bias", r"\1.bias", ours) for theirs, ours in names.items()}


def _names_of_r() -> dict[str, str]:
    """Each of their convolutions is a torch.nn.Sequential: padding (where there is any), convolution, ELU."""
    names = {"downE.0.1": "encoder.stem", "middle.0.0.1": "top_skip", "upE.2.1": "decoder.head"}
    blocks = {"downE.1.1": ("downE.2", "encoder.levels.0"), "upE.0.1": ("upE.1", "decoder.levels.0")}
    blocks["center.0.1"] = ("center.1", "encoder.levels.4")
    for level in range(3):
        blocks[f"downC.{level}.0.1"] = (f"downC.{level}.1", f"encoder.levels.{level + 1}")
        blocks[f"upC.{level}.0.1"] = (f"upC.{level}.1", f"decoder.levels.{level + 1}")
    for first, (residual, ours) in blocks.items():
        names[first] = f"{ours}.first"
        names[f"{residual}.conv.0.1"], names[f"{residual}.conv.1.1"] = f"{ours}.second", f"{ours}.third"
    names["center.1.projector.0"] = "encoder.levels.4.shortcut"
    for step in range(4):
        names[f"downS.{step}.1"], names[f"upS.{step}.0.0"] = f"encoder.downs.{step}", f"decoder.narrow.{step}"
    return names


def _names_of_h() -> dict[str, str]:
    names = {"embed_in.conv1.conv": "encoder.stem.0", "embed_in.conv2.conv": "encoder.stem.1"}
    blocks = {f"convmod{level}": f"encoder.levels.{level}" for level in range(5)}
    for number, letter, decoder in ((1, "o", "semantic"), (2, "c", "boundary")):
        names[f"embed_out{number}.conv.conv"] = f"{decoder}.head"
        for level in range(4):
            names[f"upsample{level}_{letter}.conv.conv"] = f"{decoder}.narrow.{level}"
            blocks[f"dconvmod{level}_{letter}"] = f"{decoder}.levels.{level}"
    for theirs, ours in blocks.items():
        for number, part in enumerate(("first", "second", "third"), 1):
            names[f"{theirs}.conv{number}.conv"] = f"{ours}.{part}"
    return names


def _recognised(state: Mapping[str, Tensor], where: str) -> str:
    for architecture, marks in _MARKS.items():
        if any(name.startswith(marks) for name in state):
            return architecture
    raise BadInput(
        where,
        "a checkpoint is of one of the authors' networks, unet_residual_3d or rsunet",
        f"its first layers are {', '.join(list(state)[:3])}",
        "For a network of your own write a specification: see pipeline/model/README.md.",
    )


def _widths(state: Mapping[str, Tensor], architecture: str) -> list[int]:
    """Channels of the five levels as the checkpoint has them; the published one where a layer is missing."""
    if architecture == "resunet-r":
        firsts, published = ["downE.0.1", "downC.0.0.1", "downC.1.0.1", "downC.2.0.1", "center.0.1"], PUBLISHED_WIDTHS
    else:
        firsts, published = [f"convmod{level}.conv1.conv" for level in range(5)], CODE_WIDTHS
    found = (state.get(f"{name}.bias") for name in firsts)
    return [default if bias is None else len(bias) for bias, default in zip(found, published, strict=True)]


def _require_bilinear(state: Mapping[str, Tensor], where: str) -> None:
    taps = torch.tensor(_TAPS)
    for name in filter(_KERNELS.fullmatch, state):
        kernel = state[name]
        if kernel.shape[1:] != (1, 1, 4, 4) or not torch.allclose(kernel.float(), torch.outer(taps, taps)):
            raise BadInput(
                f"{where}: {name}",
                "the up-sampling is the fixed bilinear kernel (.25, .75, .75, .25) in y and x",
                "this package computes it by interpolation",
            )


def _specification(
    network: nn.Module, source: Path, name: str, voxel_size_nm: tuple[float, float, float], weights: str, sha256: str
) -> ModelSpec:
    architecture = "resunet-r" if hasattr(network, "decoder") else "resunet-h-code"
    return ModelSpec(
        name=name,
        description=f"Imported from {source.name} of the authors of MitoEM2021-Challenge.",
        architecture=architecture,
        options={"widths": _own_widths(network)},
        voxel_size_nm=voxel_size_nm,
        patch=PATCH,
        overlap=_OVERLAP,
        normalisation=Normalisation(kind="fixed"),
        weights=weights,
        sha256=sha256,
        thresholds=_THRESHOLDS,
    )


def _own_widths(network: Any) -> list[int]:
    return [level.first.conv.out_channels for level in network.encoder.levels]


def _not_saved(path: Path, error: Exception) -> BadInput:
    why = f"torch cannot read it ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'too short'})"
    return BadInput(str(path), "a checkpoint is a file of torch.save", why)
