"""What a user sets of denoising."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings import Reach, Settings, mode_alone

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
