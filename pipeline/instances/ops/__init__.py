"""Pure operations: arrays in, arrays out. One file an op; no I/O, no Dask, no global state."""
