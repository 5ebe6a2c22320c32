"""Training of the networks: samples, augmentation, targets, loss and the loop. Needs torch, numpy and pydantic."""
