"""Pictures of slices for people: outlines, scale bars, and a figure saved whole."""
