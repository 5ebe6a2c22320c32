"""What the methods share about images: grey levels, masks, the patch lattice, resampling, quantising, padding."""
