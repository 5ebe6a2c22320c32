"""The block stages of denoising."""
