"""Training of the networks: of mitochondria (`segmentation`) and of slices (`restoration`), over what both share.

Torch, numpy, pydantic and safetensors are enough to train; see README.md.
"""
