"""The training configuration; it alone decides the weights that come out (on one machine, with one thread count)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.model.normalisation import Normalisation

Triple = tuple[int, int, int]
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class VolumeSource(BaseModel):
    """One labelled volume: an .npz file or a pair of TIFF stacks.

    The file holds `raw`, `instances`, `voxel_size_nm` and, where `raw` is a reduced volume, the `histogram` (256
    counts) of the grey levels before. Paths may hold environment variables, such as
    `${TERAMITO_DATA}/lucchi/train_raw.tif`.

    Attributes:
        raw: .npz with both arrays, or a TIFF stack of uint8 grey levels (z, y, x).
        instances: TIFF stack of instance ids, 0 = background; only with a TIFF `raw`.
        z_range: slices used, half-open, before downsampling; all of them where it is missing.
        downsample: integer factors z, y, x: block mean of the grey levels, most frequent id of the labels.
        voxel_size_nm: of the stored voxels; only with a TIFF `raw` (an .npz carries its own).
        weight: relative share of the crops drawn from this volume.
        from_step: first step that draws from it.
    """

    model_config = _STRICT

    raw: str
    instances: str | None = None
    z_range: tuple[int, int] | None = None
    downsample: Triple = (1, 1, 1)
    voxel_size_nm: tuple[float, float, float] | None = None
    weight: float = Field(default=1.0, ge=0.0)
    from_step: int = Field(default=0, ge=0)


class PhantomSource(BaseModel):
    """Synthetic tissue from `pipeline.phantom`, made at the start at the `voxel_size_nm` of the configuration.

    Attributes:
        phantom_seed: its seed.
        shape: (z, y, x) voxels.
        weight, from_step: as in `VolumeSource`.
    """

    model_config = _STRICT

    phantom_seed: int = Field(ge=0)
    shape: Triple
    weight: float = Field(default=1.0, ge=0.0)
    from_step: int = Field(default=0, ge=0)


Source = VolumeSource | PhantomSource


class Augmentation(BaseModel):
    """Chances and ranges of the random changes; flips and the in-plane transpose always happen with chance 1/2.

    Intensities are in units of the normalised input, where the volume's grey levels span about 0..1.
    """

    model_config = _STRICT

    affine: float = Field(default=0.5, ge=0.0, le=1.0)
    scale: tuple[float, float] = (0.8, 1.25)
    contrast: float = Field(default=0.2, ge=0.0)
    brightness: float = Field(default=0.15, ge=0.0)
    gamma: float = Field(default=0.4, ge=0.0)
    slice_brightness: float = Field(default=0.04, ge=0.0)
    noise: float = Field(default=0.08, ge=0.0)
    blur: float = Field(default=0.2, ge=0.0, le=1.0)
    bad_slice: float = Field(default=0.1, ge=0.0, le=1.0)


class TrainConfig(BaseModel):
    """Everything a training run depends on.

    Attributes:
        name, description: of the model that comes out.
        volumes, validation: labelled tissue; the second is never trained on, and tunes the thresholds at the end.
        output: directory of checkpoint, log and result.
        voxel_size_nm: (z, y, x) that the model is meant for, written into its specification.
        initial: specification (.json) of a model of the same architecture whose weights training starts from; random
            where it is missing.
        crop: (z, y, x) of a training crop; y and x multiples of 16.
        batch, shards: crops a step, and into how many equal parts they are split. Each part has a thread of its own
            with single-threaded arithmetic and BatchNorm statistics of its own, so the weights that come out depend on
            the number of shards but not on the cores. On two busy cores two shards took half the time of one.
        steps, warmup_steps, decay_steps: the learning rate rises linearly, stays, and falls as a cosine to 0 in the
            last `decay_steps`. As it stays in between, a run may be resumed with another number of `steps`.
        freeze_norm_steps: the last steps train with fixed normalisation statistics, as inference has them.
        recalibration_batches: batches without augmentation that set the BatchNorm statistics at the end (0 = keep).
        ema_decay: of the running average of the weights, which is the result.
        fraction_clip: see `loss.weighted_bce`.
        foreground: share of the crops that hold a randomly drawn foreground voxel.
        bfloat16: compute forward passes in bfloat16 (weights stay float32); faster where the CPU has it.
        patch, overlap: written into the specification as the default of inference.
    """

    model_config = _STRICT

    name: str
    description: str = ""
    output: str
    volumes: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()
    voxel_size_nm: tuple[float, float, float]
    initial: str | None = None
    widths: tuple[int, int, int, int, int] = (28, 36, 48, 64, 80)
    norm: Literal["none", "batch", "instance"] = "batch"
    padding: Literal["replicate", "zeros"] = "replicate"
    normalisation: Normalisation = Normalisation()
    augmentation: Augmentation = Augmentation()
    crop: Triple = (12, 112, 112)
    batch: int = Field(default=4, ge=1)
    shards: int = Field(default=1, ge=1)
    foreground: float = Field(default=0.7, ge=0.0, le=1.0)
    steps: int = Field(ge=1)
    warmup_steps: int = Field(default=100, ge=0)
    decay_steps: int = Field(default=0, ge=0)
    freeze_norm_steps: int = Field(default=0, ge=0)
    recalibration_batches: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    gradient_norm: float = Field(default=1.0, gt=0.0)
    ema_decay: float = Field(default=0.995, ge=0.0, lt=1.0)
    norm_momentum: float = Field(default=0.05, gt=0.0, le=1.0)
    fraction_clip: tuple[float, float] = (0.05, 0.99)
    bfloat16: bool = False
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=100, ge=1)
    patch: Triple = (32, 128, 128)
    overlap: Triple = (8, 32, 32)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.crop[1] != self.crop[2] or self.crop[1] % 16 or min(self.crop) < 1:
            raise ValueError("crop: height and width are equal (crops are turned) and a positive multiple of 16")
        if self.batch % self.shards:
            raise ValueError("batch: a multiple of shards")
        if self.decay_steps + self.warmup_steps > self.steps or self.freeze_norm_steps > self.steps:
            raise ValueError("steps: warmup_steps + decay_steps, and freeze_norm_steps, are at most this")
        if not any(volume.from_step == 0 and volume.weight > 0 for volume in self.volumes):
            raise ValueError("volumes: at least one has from_step 0 and a weight above 0")
        return self

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, plateau, cosine decay."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        into = step - (self.steps - self.decay_steps)
        fall = 1.0 if into < 0 or self.decay_steps == 0 else 0.5 * (1.0 + math.cos(math.pi * into / self.decay_steps))
        return self.learning_rate * rise * fall

    def norm_frozen(self, step: int) -> bool:
        """Whether the normalisation statistics are fixed in this step."""
        return step >= self.steps - self.freeze_norm_steps
