"""Training of a network for mitochondria: labelled volumes teach its mask and the boundaries of its objects."""
