"""Training of a network for mitochondria: labelled volumes, samples, targets, loss, loop and validation."""
