"""Damaged slices: found, mapped and restored before the network sees them."""
