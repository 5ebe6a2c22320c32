"""The result as Neuroglancer precomputed layers: levels, the stage that writes them, how they are checked and seen."""
