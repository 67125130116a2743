"""What the benchmarks stand on: installations, serving processes on a core of their own, load, physical limits."""
