"""The stages of a run, one file each: read, op, write. The only modules that join ops to stored arrays."""
