"""What the examples stand on; the demonstration itself is run by `make demo`."""
