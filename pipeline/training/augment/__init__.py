"""Random changes of training crops: `augmented(raw, instances, crop, generator, settings)`.

What each does, and why, is told and shown in `pipeline/training/AUGMENTATION.md`. All work is done in torch on the
device of `raw`; every decision comes from the numpy generator, so equal generators give equal crops on one device.
"""

from pipeline.training.augment.compose import AUGMENTATIONS, augmented, flip, window
from pipeline.training.augment.labels import smoothed
from pipeline.training.augment.settings import Augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "augmented", "flip", "smoothed", "window"]
