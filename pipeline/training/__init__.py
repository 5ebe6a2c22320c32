"""Training of the networks: of mitochondria (`segmentation`) and of slices (`restoration`), over what both share.

Torch, numpy and pydantic are enough to train; see README.md.
"""
