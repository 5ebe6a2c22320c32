"""Training of restorers: networks that replace damaged slices. No labels are needed: neighbouring slices teach."""
