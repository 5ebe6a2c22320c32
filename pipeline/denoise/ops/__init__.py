"""Pure functions of denoising: arrays in, arrays out."""
