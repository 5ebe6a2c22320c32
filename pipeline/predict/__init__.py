"""The network over the volume: patches on a lattice of the volume, blended and quantised."""
