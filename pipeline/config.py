"""The configuration of a run: strict, without I/O, the same in a YAML file, on the command line and in a Prefect form.

A field left out (None) is chosen from the volume by ``pipeline.plan``. Unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings import Settings, mode_alone, parse_settings

PositiveVec3 = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Vec3Field = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Count = Annotated[int, Field(ge=1)]
# Infinity is no length, and has no place in JSON.
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SizeNm = tuple[Length, Length, Length]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Reach = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Voxels = Annotated[int, Field(ge=0)]


def _one_or_several(value: Any) -> Any:
    """A name as it is, also out of a list of one; else a list of names. One message where a union would give two."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("a model is a name or a path, or a list of them")
    return names[0] if len(names) == 1 else tuple(names)


Models = Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_one_or_several)]


class BlockSettings(Settings):
    """How the volume is cut."""

    shape: PositiveVec3 | None = Field(
        None,
        description="Voxels of a block, z y x; any shape. Stored chunks follow it. Chosen from the volume if empty.",
    )


DenoiseMode = Literal["off", "auto"]
DamageKind = Literal["missing", "residual", "blur", "intensity", "saturated"]


class DenoiseSettings(Settings):
    """What is restored before the network sees it."""

    mode: DenoiseMode = Field(
        "off",
        description="auto: damaged slices and regions are found and restored from their neighbours; with a noise2noise "
        "model every slice is. off: nothing is changed.",
    )
    model: str = Field("interpolation-v1", description="A shipped restorer's name or the path of its .json.")
    mask: str | None = Field(
        None,
        description="Path or URL of a hand-made mask instead of detection, nonzero is damaged: as large as the volume "
        "or coarser by whole factors; a corrected copy of RUN/arrays/damage is one.",
    )
    kinds: tuple[DamageKind, ...] | None = Field(
        None,
        min_length=1,
        description="Kinds of detected damage that are replaced. All if empty, but in sections over 20 nm thick blur "
        "and intensity only get the grey levels of their neighbours and keep what is seen there.",
    )
    sensitivity: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Detection: 2 flags what deviates half as much from the rest of the volume."
    )
    max_gap: Annotated[int, Field(ge=1, le=16)] = Field(
        3, description="Damaged slices in a row that are bridged at most; what is longer is left as it is and counted."
    )
    feather_nm: Reach = Field(50.0, description="Rim around a restored region over which it fades into the image, nm.")
    normalise_slices: bool = Field(
        False, description="Even out jumps of brightness and contrast between slices, in the whole volume."
    )

    @model_validator(mode="after")
    def _mask_is_used(self) -> DenoiseSettings:
        if self.mask is not None and self.mode == "off":
            raise ValueError("a mask belongs to mode auto: give denoise.mode=auto with it, or leave it out")
        if self.mask is not None and self.kinds is not None:
            raise ValueError("all that a mask marks is replaced: leave kinds out, which choose from what is detected")
        return self


# The schema of Prefect's forms takes the word alone only where it says so.
Denoise = Annotated[DenoiseSettings, BeforeValidator(mode_alone, json_schema_input_type=DenoiseSettings | DenoiseMode)]


class PredictSettings(Settings):
    """The network over the volume."""

    scale: PositiveVec3 | None = Field(
        None, description="Average this many voxels (z y x) before the network; from the voxel sizes if empty."
    )
    patch: PositiveVec3 | None = Field(
        None, description="Input of the network in voxels after scaling, z y x; y and x multiples of 16."
    )
    overlap: Vec3Field | None = Field(None, description="Voxels two neighbouring patches share, z y x.")
    weights: Literal["bump", "gaussian", "crop"] = Field(
        "bump", description="How overlapping patches are blended; gaussian is the published one."
    )
    batch: Annotated[int, Field(ge=1)] = Field(1, description="Patches a network call; 1 is fastest on a CPU.")
    tta: Literal[0, 4, 8, 16] = Field(
        0,
        description="Test-time augmentation: average this many mirrored and transposed variants of each patch, at that "
        "many times the cost. 4: z-flip, transpose; 8: y-flip, x-flip, transpose; 16: all; 0: off.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")


class InstanceSettings(Settings):
    """From the two probability maps to instances. Fields left empty come from the preset."""

    preset: Literal["default", "published", "bc_watershed"] = Field(
        "default",
        description="published: T1 0.9, T2 0.8, 6-connected, 1x7x7 dilation, < 128 voxels dropped; bc_watershed: the "
        "MitoEM baseline, 26-connected seeds of 32 voxels and more flooded to semantic > 0.85, < 128 voxels dropped.",
    )
    seed_above: Probability | None = Field(None, description="T1: seeds have a semantic probability above this.")
    boundary_below: Probability | None = Field(None, description="T2: and a boundary probability below this.")
    connectivity: Literal[6, 18, 26] | None = Field(
        None, description="Voxels of one seed touch by faces, edges, corners."
    )
    minimum_seed_voxels: Voxels | None = Field(
        None, description="Whole seeds with fewer voxels are dropped, before growing."
    )
    grow: Literal["mask", "dilate", "watershed", "none"] | None = Field(
        None,
        description="mask: seeds grow through the mask; dilate: the published 1x7x7 dilation; watershed: the mask is "
        "flooded from the seeds by falling semantic probability, without a bound: identical for every block shape only "
        "as far as watershed_halo_nm decides it.",
    )
    mask_above: Probability | None = Field(
        None, description="Growth and flooding stay where the semantic probability is above this."
    )
    grow_nm: Reach | None = Field(None, description="How far seeds grow through the mask, nm along its voxels' faces.")
    watershed_halo_nm: Reach | None = Field(
        None, description="How far beyond a block the watershed looks, nm; more costs time and leaves fewer seams."
    )
    fill_holes_nm: Reach | None = Field(
        None, description="Holes inside one instance, of at most this extent along each axis, are filled; 0: off."
    )
    minimum_voxels: Voxels | None = Field(
        None, description="Whole instances with fewer voxels are dropped, after growing."
    )
    minimum_um3: Reach | None = Field(None, description="The same as a volume in um^3; give one of the two.")
    drop_border: bool = Field(False, description="Drop instances that touch the border of the volume.")
    tissue_mask: str | None = Field(
        None, description="Path or URL of a mask of the tissue: as large as the volume, or coarser by whole factors."
    )
    tissue_fraction: Probability = Field(
        0.5, description="Instances with a smaller share of their voxels inside the tissue mask are dropped."
    )
    join_gap: Annotated[int, Field(ge=0)] = Field(
        0, description="Join pieces of one mitochondrion across this many bad slices in z; 0: off."
    )
    join_overlap: Probability = Field(
        0.5, description="Share of the smaller of two faces that must overlap across the gap to be joined."
    )

    @model_validator(mode="after")
    def _one_minimum(self) -> InstanceSettings:
        if self.minimum_voxels is not None and self.minimum_um3 is not None:
            raise ValueError("minimum_voxels and minimum_um3 are two ways to say the same: give one of them")
        return self


class ExportSettings(Settings):
    """The Neuroglancer result."""

    chunk: PositiveVec3 = Field((64, 64, 64), description="Chunk of the precomputed layers, z y x.")
    layers: tuple[Literal["raw", "restored", "damage", "semantic", "boundary", "segmentation"], ...] = Field(
        ("raw", "restored", "damage", "semantic", "boundary", "segmentation"),
        description="Layers to write; restored and damage (255 where a voxel was replaced) where denoise is on.",
    )


class ClusterSettings(Settings):
    """Where blocks run. Fields left out (None) follow the cores or GPUs of this machine."""

    kind: Literal["local", "cuda", "address", "none"] = Field(
        default="local",
        description="local: worker processes on the cores here; cuda: one on each GPU here; address: a Dask scheduler "
        "that already runs; none: threads of this process.",
    )
    workers: Count | None = Field(
        default=None, description="Worker processes (local: one for two cores, cuda: one a GPU)."
    )
    threads_per_worker: Count = Field(
        default=2, description="Blocks a worker has in hand: one computes while another reads or writes."
    )
    compute_threads: Count | None = Field(
        default=None, description="Threads of torch and BLAS in a worker; the cores shared by the workers if empty."
    )
    memory_limit: str | None = Field(
        default=None,
        pattern=r"^0*[1-9]\d*(\.\d+)? ?([kMGT]i?B)$",
        description='Memory of one worker, for example "8 GiB"; it is restarted at 95 % of that.',
    )
    address: str | None = Field(default=None, description="Of the Dask scheduler, for example tcp://10.0.0.5:8786.")
    dashboard: str = Field(
        default="127.0.0.1:0", description="Where our own scheduler shows its dashboard; port 0: any."
    )
    in_flight: Count = Field(default=1000, description="Most Dask tasks submitted and not yet finished.")
    allowed_failures: Annotated[int, Field(ge=0)] = Field(
        default=2, description="Dead workers a block may leave behind before it is suspected of killing them."
    )
    worker_wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=120.0, description="Seconds to wait for a worker where there is none, then give up."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClusterSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("address belongs to kind address: give both or neither")
        unused = [name for name in ("workers", "compute_threads", "memory_limit") if getattr(self, name) is not None]
        if unused and self.kind in ("address", "none"):
            raise ValueError(
                f"{', '.join(unused)} cannot be set with kind {self.kind}, which starts no workers: leave out, or use "
                "kind local"
            )
        return self


class RunConfig(Settings):
    """Everything a run needs to know."""

    input: str = Field(
        description="Path or URL: zarr, OME-Zarr, TIFF, HDF5 (file.h5:dataset), precomputed; [z0:z1,y0:y1,x0:x1] crops."
    )
    output: str = Field(description="Directory of the run. The same directory again resumes.")
    voxel_size_nm: SizeNm | None = Field(None, description="z y x; needed where the file does not state it.")
    model: Models = Field(
        "mito-v1",
        description="A shipped model's name or the path of a model's .json; a list of them is averaged, and the first "
        "decides patch, overlap and thresholds.",
    )
    block: BlockSettings = BlockSettings()
    denoise: Denoise = DenoiseSettings()
    predict: PredictSettings = PredictSettings()
    instances: InstanceSettings = InstanceSettings()
    export: ExportSettings = ExportSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def models(self) -> tuple[str, ...]:
        """The models, one or more, in the order in which they are averaged."""
        return (self.model,) if isinstance(self.model, str) else self.model


class InstancesConfig(Settings):
    """Instances from two stored probability maps, from this network or any other."""

    semantic: str = Field(description="Semantic probability map: uint8 0..255 or float 0..1, any input format.")
    boundary: str = Field(description="Boundary probability map of the same shape.")
    output: str = Field(description="Directory of the result. The same directory again resumes.")
    voxel_size_nm: SizeNm | None = Field(None, description="z y x; needed where the maps do not state it.")
    block: BlockSettings = BlockSettings()
    instances: InstanceSettings = InstanceSettings()
    export: ExportSettings = ExportSettings(layers=("segmentation",))
    cluster: ClusterSettings = ClusterSettings()


def parse_config(values: dict[str, Any]) -> RunConfig:
    """A run configuration from plain values.

    Raises:
        BadInput: one line for every offending key, with the nearest known key for an unknown one.
    """
    return parse_settings(RunConfig, values)
