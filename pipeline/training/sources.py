"""The labelled tissue that a training configuration names: real volumes and synthetic ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.geometry import Triple
from pipeline.model.pinned import STRICT
from pipeline.settings import SizeNm

Positive = Annotated[int, Field(ge=1)]


class RawSource(BaseModel):
    """Grey levels of one volume: an .npz file with `raw`, or any address that `teramito` reads.

    Addresses may hold environment variables (`${TERAMITO_DATA}/lucchi/train_raw.tif`) and end in a crop,
    `[z0:z1,y0:y1,x0:x1]`.

    Attributes:
        raw: uint8 grey levels (z, y, x).
        z_range: slices used, half-open, before downsampling; all of them where it is missing.
        voxel_size_nm: of the stored voxels, where the file does not state it.
        weight: relative share of the crops drawn from this volume.
    """

    model_config = STRICT

    raw: str
    z_range: tuple[int, int] | None = None
    voxel_size_nm: SizeNm | None = None
    weight: float = Field(default=1.0, ge=0.0)


class VolumeSource(RawSource):
    """One labelled volume: an .npz file, or grey levels and instances at any two addresses that `teramito` reads.

    An .npz holds `raw`, `instances`, `voxel_size_nm` and, where `raw` is a reduced volume, the `histogram` (256 counts)
    of the grey levels before.

    Attributes:
        instances: instance ids, 0 = background; not with an .npz.
        downsample: integer factors z, y, x: block mean of the grey levels, most frequent id of the labels.
        mask_connectivity: the labels are a mask; its connected components (6, 18 or 26) are the instances.
        mask_class: the labels are classes, and this one is what the network shall find; with `mask_connectivity`.
        from_step: first step that draws from it.
    """

    instances: str | None = None
    downsample: tuple[Positive, Positive, Positive] = (1, 1, 1)
    mask_connectivity: Literal[6, 18, 26] | None = None
    mask_class: int | None = Field(default=None, ge=1)
    from_step: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _parted(self) -> VolumeSource:
        if self.mask_class is not None and self.mask_connectivity is None:
            raise ValueError("mask_class: give mask_connectivity too (6, 18 or 26), which makes instances of a class")
        return self


class PhantomSource(BaseModel):
    """Synthetic tissue from `pipeline.phantom`, made at the start at the `voxel_size_nm` of the configuration.

    Attributes:
        phantom_seed: its seed.
        shape: (z, y, x) voxels.
        weight, from_step: as in `VolumeSource`.
    """

    model_config = STRICT

    phantom_seed: int = Field(ge=0)
    shape: Triple
    weight: float = Field(default=1.0, ge=0.0)
    from_step: int = Field(default=0, ge=0)


Source = VolumeSource | PhantomSource
