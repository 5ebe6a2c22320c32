"""The settings of ``teramito evaluate``."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from pipeline.engine.settings import BlockSettings, ClusterSettings
from pipeline.evaluation.scores import PRESETS, Preset, Scoring
from pipeline.settings import Length, Settings, SizeNm, Voxels


class EvaluateConfig(Settings):
    """What to compare, and how."""

    prediction: str = Field(description="Segmentation, any input format.")
    truth: str = Field(description="Truth of the same shape.")
    output: str | None = Field(None, description="Directory of the result; the same again resumes.")
    raw: str | None = Field(None, description="The image, for the sheet of pictures.")
    voxel_size_nm: SizeNm | None = Field(None, description="z y x; for the sheet, where no file states it.")
    preset: Preset = Field("mitoem", description="Published limits of sizes and smallest true instance.")
    size_limits: tuple[Length, Length] | None = Field(None, description="Most voxels of small and of medium instances.")
    ignore_below: Voxels | None = Field(None, description="True instances of fewer voxels are dropped.")
    classes: bool = Field(False, description="The volumes are class maps: IoU of each class instead of instances.")
    block: BlockSettings = BlockSettings()
    cluster: ClusterSettings = ClusterSettings(kind="none")

    @field_validator("size_limits")
    @classmethod
    def _rising(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError("small instances must end below medium ones, A < B")
        return limits

    @field_validator("classes")
    @classmethod
    def _of_instances_or_classes(cls, classes: bool, others: ValidationInfo) -> bool:
        if classes and any(others.data.get(name) is not None for name in ("size_limits", "ignore_below")):
            raise ValueError("size_limits and ignore_below belong to instances, not to classes")
        return classes

    @field_validator("cluster")
    @classmethod
    def _where_workers_write(cls, cluster: ClusterSettings, others: ValidationInfo) -> ClusterSettings:
        if cluster.kind == "address" and "output" in others.data and others.data["output"] is None:
            raise ValueError("cluster.kind address needs an output directory that the workers there can write")
        return cluster

    @property
    def scoring(self) -> Scoring:
        """The preset, with what was given besides."""
        preset = PRESETS[self.preset]
        below = preset.ignore_below if self.ignore_below is None else self.ignore_below
        return Scoring(self.size_limits or preset.limits, below)
