"""How often and how strongly training crops are changed: one part of the configuration for each augmentation.

Chances are of one crop. In-plane lengths are in voxels of the crop. Grey levels are those of the normalised input,
where a volume spans about 0..1.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
Chance = Annotated[float, Field(ge=0.0, le=1.0)]


def _ordered(factors: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < factors[0] <= factors[1]:
        raise ValueError("two positive numbers, the smaller one first")
    return factors


# A list is taken too: the validator of `Augmentation` hands on JSON as Python's values.
Factors = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_ordered)]


class Rotate(BaseModel):
    """Turn in the plane by any angle."""

    model_config = _STRICT
    chance: Chance = 0.5


class Rescale(BaseModel):
    """Stretch y and x by a factor each, uniform between the two `factors`: compression by the knife."""

    model_config = _STRICT
    chance: Chance = 0.3
    factors: Factors = (0.9, 1.1)


class ScaleJitter(BaseModel):
    """Zoom y and x by one factor, log-uniform between the two `factors`, so that one model serves 5 to 12 nm."""

    model_config = _STRICT
    chance: Chance = 0.7
    factors: Factors = (0.7, 1.4)


class Flip(BaseModel):
    """Mirror z, y and x and swap y and x, each with chance 1/2."""

    model_config = _STRICT
    chance: Chance = 1.0


class Elastic(BaseModel):
    """Move voxels by uniform noise in +- `alpha` smoothed with a Gaussian of `sigma`; all slices alike."""

    model_config = _STRICT
    chance: Chance = 0.2
    alpha: float = Field(default=16.0, ge=0.0)
    sigma: float = Field(default=4.0, gt=0.0)


class Grayscale(BaseModel):
    """Contrast, brightness and gamma, in this order.

    Attributes:
        contrast: the factor is uniform in 1 +- this, about the grey level `pivot`.
        brightness: the shift is uniform in +- this.
        gamma: the exponent is 2 ** uniform(-gamma, gamma).
        by_slice: share of the crops in which every slice has values of its own; else the crop has one set.
        clip: cut grey levels to 0..1 before gamma; without it, what lies outside keeps its distance.
    """

    model_config = _STRICT
    chance: Chance = 0.8
    contrast: float = Field(default=0.2, ge=0.0, lt=1.0)
    pivot: float = 0.5
    brightness: float = Field(default=0.15, ge=0.0)
    gamma: float = Field(default=0.4, ge=0.0)
    by_slice: Chance = 0.2
    clip: bool = False


class MissingParts(BaseModel):
    """A band across a slice is replaced by the slice's mean: a fold or crack. Labels stay.

    Attributes:
        slice_chance: of each slice, given that the crop has any; two such slices are at least three apart.
        half_width: the band reaches so far to both sides of its middle line.
    """

    model_config = _STRICT
    chance: Chance = 0.1
    slice_chance: Chance = 0.3
    half_width: int = Field(default=10, ge=0)


class MissingSection(BaseModel):
    """Delete `sections` slices of the crop, labels too: lost sections. Never its first or last one."""

    model_config = _STRICT
    chance: Chance = 0.1
    sections: int = Field(default=2, ge=1)


class Misalignment(BaseModel):
    """One slice slips, or it and all that follow: shifted or turned, labels too.

    Attributes:
        displacement: no voxel of the crop moves by more in y or in x.
        rotation: share of turns among the misalignments; the others are shifts.
        slip: share of single slices; otherwise all that follow move as well.
    """

    model_config = _STRICT
    chance: Chance = 0.1
    displacement: int = Field(default=8, ge=0)
    rotation: Chance = 0.5
    slip: Chance = 0.5


class MotionBlur(BaseModel):
    """A box filter of `taps` voxels along y or along x in `sections` slices: drift of stage or beam."""

    model_config = _STRICT
    chance: Chance = 0.1
    sections: int = Field(default=2, ge=1)
    taps: int = Field(default=7, ge=1)


class CutBlur(BaseModel):
    """A cuboid of `share` of each side, at a coarser resolution in the plane: by 2 to 8, say."""

    model_config = _STRICT
    chance: Chance = 0.1
    share: Chance = 0.4
    factors: Annotated[tuple[int, int], Field(strict=False), AfterValidator(_ordered)] = (2, 4)


class CutNoise(BaseModel):
    """Uniform noise of +- `amplitude` in a cuboid of `share` of each side, grey levels there cut to 0..1."""

    model_config = _STRICT
    chance: Chance = 0.1
    share: Chance = 0.4
    amplitude: float = Field(default=0.3, ge=0.0)


class SliceBrightness(BaseModel):
    """A shift for each slice, normally distributed: the beam's current and the section's thickness vary."""

    model_config = _STRICT
    chance: Chance = 0.8
    sigma: float = Field(default=0.04, ge=0.0)


class Noise(BaseModel):
    """Normally distributed noise in every voxel, its standard deviation uniform in 0..`most`: short dwell times."""

    model_config = _STRICT
    chance: Chance = 0.5
    most: float = Field(default=0.08, ge=0.0)


class Blur(BaseModel):
    """3x3 binomial filter in the plane: a little out of focus."""

    model_config = _STRICT
    chance: Chance = 0.2


class BadSlice(BaseModel):
    """One slice without or with 0.3 of its contrast, about its mean or about black: badly stained or lost."""

    model_config = _STRICT
    chance: Chance = 0.1


class Augmentation(BaseModel):
    """All augmentations of a training; the defaults are the moderate and cheap mix that we recommend.

    The first eleven are those of the MitoEM2021 challenge's winning entry, in its order; the others are ours. In a
    configuration the words "default", "published" and "none" stand for whole sets.

    Attributes:
        smooth_labels: smooth each object's outline afterwards, slice by slice (`labels.smoothed`).
    """

    model_config = _STRICT

    rotate: Rotate = Rotate()
    rescale: Rescale = Rescale()
    flip: Flip = Flip()
    elastic: Elastic = Elastic()
    grayscale: Grayscale = Grayscale()
    missing_parts: MissingParts = MissingParts()
    missing_section: MissingSection = MissingSection()
    misalignment: Misalignment = Misalignment()
    motion_blur: MotionBlur = MotionBlur()
    cut_blur: CutBlur = CutBlur()
    cut_noise: CutNoise = CutNoise()
    scale_jitter: ScaleJitter = ScaleJitter()
    slice_brightness: SliceBrightness = SliceBrightness()
    noise: Noise = Noise()
    blur: Blur = Blur()
    bad_slice: BadSlice = BadSlice()
    smooth_labels: bool = False

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, str):
            return given
        if given not in ("default", "published", "none"):
            raise ValueError(f'{given}: augmentation is "default", "published", "none" or a set of parts')
        chosen = cls.published() if given == "published" else cls.none() if given == "none" else cls()
        return chosen.model_dump(mode="json" if info.mode == "json" else "python")  # lists there, tuples here

    @classmethod
    def published(cls) -> Augmentation:
        """Exactly the eleven of the MitoEM2021 winner, with its chances and ranges, and smoothed labels."""
        return cls(
            rotate=Rotate(chance=0.5),
            rescale=Rescale(chance=0.5, factors=(0.8, 1.2)),
            flip=Flip(chance=1.0),
            elastic=Elastic(chance=0.75, alpha=16.0, sigma=4.0),
            grayscale=Grayscale(
                chance=0.75, contrast=0.15, pivot=0.0, brightness=0.15, gamma=1.0, by_slice=0.5, clip=True
            ),
            missing_parts=MissingParts(chance=0.9, slice_chance=0.9, half_width=40),
            missing_section=MissingSection(chance=0.5, sections=2),
            misalignment=Misalignment(chance=0.5, displacement=16, rotation=0.5, slip=0.5),
            motion_blur=MotionBlur(chance=0.5, sections=2, taps=11),
            cut_blur=CutBlur(chance=0.5, share=0.4, factors=(2, 8)),
            cut_noise=CutNoise(chance=0.75, share=0.4, amplitude=0.3),
            scale_jitter=ScaleJitter(chance=0.0),
            slice_brightness=SliceBrightness(chance=0.0),
            noise=Noise(chance=0.0),
            blur=Blur(chance=0.0),
            bad_slice=BadSlice(chance=0.0),
            smooth_labels=True,
        )

    @classmethod
    def none(cls) -> Augmentation:
        """Nothing is changed; flips neither."""
        return cls.only()

    @classmethod
    def only(cls, **parts: BaseModel) -> Augmentation:
        """The named parts (`rotate=Rotate(chance=1.0)`), and nothing else."""
        still = {
            name: type(part).model_validate({"chance": 0.0})
            for name, part in cls()
            if isinstance(part, BaseModel) and name not in parts
        }
        return cls.model_validate({**still, **parts})
