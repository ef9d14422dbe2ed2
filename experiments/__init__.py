"""Studies and benchmarks over the library."""
