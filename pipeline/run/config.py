"""The configuration of a run: strict, without I/O, the same in a YAML file, on the command line and in a Prefect form.

A field left out (None) is chosen from the volume by ``pipeline.run.plan``. Unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.denoise.settings import Denoise, DenoiseSettings
from pipeline.engine.settings import BlockSettings, ClusterSettings
from pipeline.export.settings import ExportSettings
from pipeline.instances.settings import InstanceSettings
from pipeline.predict.settings import PredictSettings
from pipeline.settings import Settings, SizeNm, parse_settings


def _one_or_several(value: Any) -> Any:
    """A name as it is, also out of a list of one; else a list of names. One message where a union would give two."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("a model is a name or a path, or a list of them")
    return names[0] if len(names) == 1 else tuple(names)


Models = Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_one_or_several)]


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
